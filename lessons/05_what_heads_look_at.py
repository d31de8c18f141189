# %% [markdown]
# # What do heads look at?
#
# How can a model that has never seen a word before copy it when it comes again? By two heads that work together, one in
# each of two layers: the first notes at every token what stood before it, the second looks for notes that name the
# present token, and reads on from there. Here you build that circuit by hand, watch a small GPT find it by itself, pick
# out its heads by two numbers, switch them off one by one, and look at all of it in a page that you can click through.
#
# | | |
# | --- | --- |
# | You will be able to | score heads, tell a pattern from a cause by switching heads off, use the attention explorer |
# | Builds on | 03, multi-head attention; 04, a GPT on real text |
# | Time | 35 minutes to read, 20 s to run |
# | Files to open | `visualization/head_statistics.py`, `visualization/explorer/`, `inference/inspection.py` |
# | Source | Elhage et al. 2021 (circuits); Olsson et al. 2022 (induction heads) |
# | Documents | D5 §1.2, what it says of losing a head; D2 §1.2. Neither says what a head does |
# | Next | `minitransformer attention "a text" --model …`: the same page of any model that you train |

# %%
import string
import sys

import numpy as np
from rich.progress import track

import minitransformer as mt
from minitransformer import data, inference, optim
from minitransformer.lesson import Lesson
from minitransformer.models import GPT, GPTConfig
from minitransformer.visualization import Question, bars, explore, head_grid, heatmap, lines
from minitransformer.visualization import statistics as head_statistics

lesson = Lesson("05", "What do heads look at?")


def progress(steps, what):
    return track(range(steps), what, console=lesson.console, disable=not sys.stdout.isatty(), transient=True)


# %% [markdown]
# ## 1. The question and the claim
#
# Lesson 03 switched off the sixteen heads of a GPT and found most of them dispensable. D5 §1.2 says it of all heads:
# losing one does not change what the model does (claim C22). There we could not say *what* was lost, because nobody
# knew the jobs of those heads. So now a task with one job, which one head alone cannot do.
#
# ## 2. Numbers on paper
#
# The sequence is a b a, with $a = (1, 0)$ and $b = (0, 1)$. What comes next? By the only evidence there is, b.
#
# *Layer 0* copies to each position the token before it, as a note: $n_0 = (0, 0)$, $n_1 = a$, $n_2 = b$. *Layer 1* lets
# the last token ask with itself, $q = a$; the keys are the notes, the values the tokens. With a scale of $\ln 8$:
#
# | position $j$ | token | note | score $\ln 8 \cdot q \cdot n_j$ | exp | weight |
# | --- | --- | --- | --- | --- | --- |
# | 0 | a | – | 0 | 1 | 0.1 |
# | 1 | b | a | ln 8 | 8 | 0.8 |
# | 2 | a | b | 0 | 1 | 0.1 |
#
# The output is $0.8\,b + 0.2\,a$: "b". Note what each layer looks at: layer 0 at the *position* before, whatever stands
# there; layer 1 at a *token's meaning*, wherever it stands. And layer 1 finds b by what layer 0 wrote on it.

# %%
lesson.step("On paper: a b a, and then?")
tokens = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])  # (T, V)
notes = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # (T, V)
exps = np.exp(np.log(8) * notes @ tokens[2])  # (T,)
weights = exps / exps.sum()  # (T,)
np.testing.assert_allclose(weights, [0.1, 0.8, 0.1])
lesson.say(f"weights {np.round(weights, 3)}, output {np.round(weights @ tokens, 3)}: 'b' with 0.8")

# %% [markdown]
# ## 3. The formula, the naive code, the engine
#
# Two numbers say how much a head with weights $p_{ij}$ is of either kind. The *previous-token score* is the mean weight
# on the token before; the *induction score* the mean weight on whatever followed the present token earlier:
#
# $$\text{prev} = \frac1{T-1}\sum_{i \ge 1} p_{i,i-1},\qquad
# \text{ind} = \operatorname*{mean}_{i}\;\sum_{j < i,\; t_{j-1} = t_i} p_{ij}$$
#
# where the mean of the second goes over those $i$ whose token has a follower already. Loops, and the package:


# %%
def naive_scores(p, t):
    """p (T, T), t (T,) -> (previous-token score, induction score)."""
    T, induction = len(t), []
    for i in range(T):
        followers = [j for j in range(1, i) if t[j - 1] == t[i]]  # positions after earlier occurrences
        if followers:
            induction.append(sum(p[i, j] for j in followers))
    return np.mean([p[i, i - 1] for i in range(1, T)]), np.mean(induction)


def circuit(t, symbols, scale=10.0):
    """The two heads by hand: ids t (T,) -> what each position expects next (T, V), and the second head's weights."""
    x = np.eye(symbols)[t]  # (T, V): one-hot tokens
    back = np.eye(len(t), k=-1)  # (T, T): all weight on the position before
    note = back @ x  # (T, V)
    scores = scale * x @ note.T  # (T, T)
    scores[np.triu_indices(len(t), 1)] = -np.inf  # no looking ahead
    p = np.exp(scores - scores.max(axis=1, keepdims=True))  # (T, T)
    p /= p.sum(axis=1, keepdims=True)
    return p @ x, p  # (T, V), (T, T)


LETTERS = string.ascii_letters[:48]
tokenizer = data.CharTokenizer.train(LETTERS)
t = np.array(tokenizer.encode("abcdefghabcdefgh"))
expected, p = circuit(t, 48)
x = np.eye(48)[t][None, None]  # (B, H, T, V), one of each
note = np.concatenate([np.zeros((1, 1, 1, 48)), x[:, :, :-1]], axis=2)
fused = mt.scaled_dot_product_attention(*map(mt.tensor, (x, note, x)), is_causal=True, scale=10.0).numpy()[0, 0]
np.testing.assert_allclose(fused, expected, rtol=1e-10, atol=1e-12)
found = head_statistics(p, t)
np.testing.assert_allclose([found["previous token"], found["induction"]], naive_scores(p, t))
lesson.step("The circuit by hand, on abcdefgh abcdefgh")
lesson.say(f"after the second abcdefg it says {tokenizer.decode(expected[8:15].argmax(axis=1))!r}")
lesson.say("its second head: induction {induction:.3f}, previous token {previous token:.3f}".format(**found))

# %% [markdown]
# ## 4. A task that needs it, and a GPT that has to find it
#
# Each sequence is 33 letters, all different, drawn from 48. Then a piece of 10 to 16 letters out of the first half is
# copied to somewhere in the second half. Nothing but the copied letters can be known in advance, and of these all but
# the first: so only they count in the loss (the other targets are −100, which `cross_entropy` leaves out). Every
# sequence is new. There is nothing to memorise; what can be learned is *how to look*.
#
# One thing differs from lesson 04. An initial scale of 0.02 suits wide models; at width 64 all scores would start near
# 0 and stay there for long. So q, k and v start six times as large, and the output four times.

# %%
V, T, STEPS = 48, 32, 400


def batch(generator, count):
    """count new sequences -> ids (B, T), targets (B, T) with -100 where nothing can be known."""
    ids = generator.uniform((count, V)).argsort(axis=1)[:, : T + 1]  # (B, T + 1): all different
    half, length = (T + 1) // 2, generator.integers(10, 17, (count, 1))
    source = (generator.uniform((count, 1)) * (half - length)).astype(int)  # (B, 1)
    target = half + (generator.uniform((count, 1)) * (T + 1 - half - length)).astype(int)  # (B, 1)
    at = np.arange(T + 1)
    copied = (at >= target) & (at < target + length)  # (B, T + 1)
    ids = np.where(copied, np.take_along_axis(ids, np.clip(at - target + source, 0, T), axis=1), ids)
    return ids[:, :-1], np.where(copied[:, 1:] & copied[:, :-1], ids[:, 1:], -100)


fresh_ids, fresh_targets = batch(mt.Generator(99), 128)  # never trained on


def loss_and_accuracy(model):
    """(loss in nats a token, share of right answers) on the copied tokens of the fresh sequences."""
    with model.evaluating():
        logits = model(fresh_ids)
        known = fresh_targets >= 0
        right = (logits.numpy().argmax(axis=-1) == fresh_targets)[known].mean()
        return mt.cross_entropy(logits, fresh_targets).item(), right


def scores(model):
    """(previous-token, induction), (L, H) each: means over 64 fresh sequences, each up to where its copy may begin."""
    with model.evaluating():
        maps = np.stack(model(fresh_ids[:64], capture_attention=True)[1], axis=1)  # (B, L, H, T, T)
    half = T // 2
    previous = head_statistics(maps[..., :half, :half])["previous token"].mean(axis=0)
    return previous, np.mean([head_statistics(m, t)["induction"] for m, t in zip(maps, fresh_ids)], axis=0)


def new_model(layers):
    model = GPT(GPTConfig(V, context=T, layers=layers, heads=4, width=64), mt.Generator(2))
    for block in model.blocks:
        block.attention.qkv.weight.data *= 6
        block.attention.output.weight.data *= 4
    return model


def train(model, steps=STEPS, watch=None):
    generator, optimizer = mt.Generator(3), optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.0)
    for step in progress(steps, f"{len(model.blocks)} layers"):
        if watch and step % 25 == 0:
            watch(step)
        for group in optimizer.param_groups:
            group["lr"] = optim.warmup_cosine(step, peak=5e-3, warmup=30, total=steps, floor=5e-4)
        optimizer.zero_grad()
        model.loss(*batch(generator, 32)).backward()
        optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    if watch:
        watch(steps)
    return model


# %% [markdown]
# Before training, what does a copied letter cost, if all 48 seem alike? And afterwards, how many are right? How will it
# come: a little better with every step, or all at once?

# %%
lesson.step("Training: 2 layers of 4 heads, width 64")
guess_start = lesson.predict("loss on copied letters before training (V = 48), in nats?", round(np.log(48), 2), "nats")
guess_right = lesson.predict("copied letters right after training, in %?", 98, "%")
gpt = new_model(2)
guess_start.see(loss_and_accuracy(gpt)[0], allowed=(3.6, 4.2))
history, pages = [], {}


def watch(step):
    previous, induction = scores(gpt)
    history.append((step, *loss_and_accuracy(gpt), previous[0].max(), induction[1].max()))
    if step % 50 == 0:  # for the page: the attention (L, H, T, T) in one sequence
        with gpt.evaluating():
            pages[step] = np.stack([layer[0] for layer in gpt(fresh_ids[:1], capture_attention=True)[1]])


train(gpt, watch=watch)
steps, losses, accuracies, previous_scores, induction_scores = np.array(history).T
intact, accuracy = losses[-1], accuracies[-1]
guess_right.see(100 * accuracy, allowed=(85, 100))
lines(steps, {"copied letters right": accuracies, "best previous-token score, layer 0": previous_scores,
      "best induction score, layer 1": induction_scores}, xlabel="step", ylabel="share",
      title="Copying is found all at once, and with it the heads", path=lesson.figure("training"))  # fmt: skip
steepest = int(np.diff(accuracies).argmax())
lesson.say(f"steepest from step {steps[steepest]:.0f} to {steps[steepest + 1]:.0f}: "
           f"right answers {accuracies[steepest]:.0%} -> {accuracies[steepest + 1]:.0%}")  # fmt: skip

# %% [markdown]
# The curve is flat, then steep. A circuit of two parts pays only when both are there: notes that nobody reads are of no
# use, and neither is a reader without notes. Olsson et al. 2022 saw the same step in large language models, early in
# their training, at the moment when they begin to learn from their context.
#
# Not every start is as lucky. Most copies stand about 16 letters behind their originals, and some initial weights
# (`mt.Generator(0)`, say) first find that and rest there: half of the answers come out right without any induction.
#
# ## 5. Predict: which head does what?
#
# You know the circuit. In which layer is the best previous-token head, and in which the best induction head? Could it
# be the other way round?

# %%
lesson.step("Eight heads, two numbers each")
guess_previous = lesson.predict("layer of the head with the highest previous-token score?", 0)
guess_induction = lesson.predict("layer of the head with the highest induction score?", 1)
previous, induction = scores(gpt)
lesson.say("  layer.head   previous  induction")
for layer, head in np.ndindex(2, 4):
    lesson.say(f"  {layer}.{head}           {previous[layer, head]:.2f}      {induction[layer, head]:.2f}")
noter, reader = (np.unravel_index(s.argmax(), s.shape) for s in (previous, induction))
guess_previous.see(noter[0], allowed=(0, 0))
guess_induction.see(reader[0], allowed=(1, 1))
view = inference.inspect(gpt, tokenizer, fresh_ids[0])
head_grid(view.attention, highlight=[noter, reader], path=lesson.figure("heads"),
          title="Layer 0 looks one back; layer 1 along the copy")  # fmt: skip
heatmap(view.attention[reader], view.labels, path=lesson.figure("induction_head"),
        title=f"Layer {reader[0]}, head {reader[1]}: from the copy, one past the original")  # fmt: skip

# %% [markdown]
# The stripe in the second figure is the signature: it runs parallel to the diagonal, begins where the copy begins,
# and lies **one column to the right** of where the same letters stood. And a thing that nobody planned: not one
# induction head but several, doing the same. The other way round is impossible: a reader cannot stand below its writer.
# Look also at where layer 0 stops: in the second half nobody will read notes, and some heads do not write them there.
#
# ## 6. Look for yourself
#
# The same model as a page: pick a head, pick a letter, read the numbers, drag the training step back and watch the
# stripe dissolve. It asks you something first. Open it with a link that ends in `#layer=0&head=0` and you are there.

# %%
lesson.step("The page")
first = int(np.argmax(fresh_targets[0] >= 0))  # the first copied letter, from which the next can be known
asked = view.labels[first]
options = (f"at the earlier {asked!r}", f"at what followed the earlier {asked!r}", "at the letter just before it")
question = Question(
    f"Letter {first}, {asked!r}, occurred before. Where will the strongest induction head look from here?",
    options, answer=1, why="It looks for a note that says so: layer 0 wrote it on the letter that followed.",
)  # fmt: skip
where = {"source": len(pages) - 1, "layer": reader[0], "head": reader[1], "token": first}
page = explore(pages, view.labels, **view.beside, question=question, start=where,
               title="What do heads look at?", caption="Two layers of four heads that learned to copy.",
               path=lesson.folder / "attention.html")  # fmt: skip
link = "&".join(f"{name}={value}" for name, value in where.items())
lesson.say(f"open {lesson.folder.as_posix()}/attention.html#{link} ({page.megabytes:.2f} MB, needs no network)")
target = int(view.attention[reader][first].argmax())
assert fresh_ids[0][target - 1] == fresh_ids[0][first], "it looks at what followed the first occurrence"

# %% [markdown]
# ## 7. The claim: switch heads off
#
# A pattern is not yet a cause. Leave out the best previous-token head: does the loss rise by a factor of 1, 10, 100?
# Without the best induction head, of which there are several, how many letters stay right? And without all of layer 1,
# is the model better or worse than guessing?

# %%
lesson.step("Without each of the eight heads")
guess_noter = lesson.predict("loss without the best previous-token head, times the intact loss?", 100, "times")
guess_reader = lesson.predict("copied letters right without the best induction head, in %?", 95, "%")
guess_layer = lesson.predict("loss without all of layer 1, times that of guessing, ln 48?", 1.5, "times")


def without(*heads):
    with gpt.without_heads(heads):
        return loss_and_accuracy(gpt)


lost = {pair: without(pair) for pair in np.ndindex(2, 4)}
layer_lost = without(*((1, head) for head in range(4)))
guess_noter.see(lost[tuple(noter)][0] / intact, allowed=(5, 5000))
guess_reader.see(100 * lost[tuple(reader)][1], allowed=(60, 100))
guess_layer.see(layer_lost[0] / np.log(V), allowed=(0.6, 3))
names = [f"layer {layer}, head {head}" for layer, head in lost]
bars(["intact", *names, "all of layer 1"], [intact, *(loss for loss, _ in lost.values()), layer_lost[0]],
     xlabel="loss on copied letters (nats), log scale", path=lesson.figure("without_each_head"), log=True,
     title="Readers stand in for each other; the best writer has no stand-in",
     reference={"guessing": np.log(V)})  # fmt: skip
for pair, (loss, right) in lost.items():
    lesson.say(f"  without {pair[0]}.{pair[1]}: loss {loss:6.3f}, right {right:.0%}")
readers = [lost[1, head] for head in range(4)]
lesson.claim(
    "C22",
    measured=f"without one of the four induction heads {min(r for _, r in readers):.0%} or more of the copied letters "
    f"stay right (intact {accuracy:.0%}), without all four {layer_lost[1]:.0%}; without previous-token head "
    f"{noter[0]}.{noter[1]} {lost[tuple(noter)][1]:.0%}, the loss {lost[tuple(noter)][0] / intact:.0f} times as high",
    setup=f"GPT 2 layers × 4 heads, width 64, {STEPS} steps on copied pieces of random letters; one model, "
    "whose seed and initial scale were chosen so that induction forms; 128 fresh sequences",
    verdict="partly",
)

# %% [markdown]
# So the claim holds for one kind of head and fails for the other, in one model. The readers are redundant; the best
# writer of notes is not. And "losing one changes nothing" says nothing of losing all: four heads of which each is
# dispensable carry, together, the whole ability. Look also for a head of layer 0 with a low score whose loss costs
# much: two numbers do not name every job.
#
# ## 8. Break it: one layer, no positions
#
# Take away one thing at a time. A model of *one* layer, trained just as long: what share will it get right? It can look
# a fixed distance back, and be right when the copy happens to stand at the usual distance, which is not rare here.
# Then the trained model of two layers, with its table of positions set to their mean: every "one back" is lost.

# %%
lesson.step("Break it")
guess_one = lesson.predict("copied letters right with 1 layer, in %?", 50, "%")
guess_blind = lesson.predict("copied letters right with 2 layers that do not see positions, in %?", 5, "%")
single = train(new_model(1))
guess_one.see(100 * loss_and_accuracy(single)[1], allowed=(5, 75))
table = gpt.position_embedding.weight.data
kept = table.copy()
table[:] = kept.mean(axis=0)
blind = loss_and_accuracy(gpt)[1]
table[:] = kept
guess_blind.see(100 * blind, allowed=(0, 30))
assert accuracy > loss_and_accuracy(single)[1] + 0.1 and loss_and_accuracy(gpt)[1] == accuracy

# %% [markdown]
# | symptom | cause | the test that catches it |
# | --- | --- | --- |
# | does not learn from its context | one layer: nobody writes notes | right answers on fresh random copies |
# | no stripe beside the diagonal | positions are not added | previous-token scores of all heads are alike |
# | the stripe is one column off | targets shifted twice, or not at all | the weight one column to the left |
# | a fine stripe, and no effect | pattern, not cause: others do the same | switch the head off, measure the loss |

# %%
lesson.finish()

# %% [markdown]
# ## Questions learners ask
#
# * **Do real language models have such heads?** Yes. Olsson et al. 2022 found them in models of two layers and more, up
#   to large ones, and there some also match *similar* tokens, not only equal ones.
# * **Why not look straight for the letter after the earlier a?** A head sees what is written on a key. Without layer 0
#   the key "b" says only "b"; that an "a" stood before it is written nowhere.
# * **Is a map with a clear pattern an explanation?** No. Weights say where a head reads. Values can be small, and other
#   heads may carry the same news. In the page, compare with "value-weighted norm" and "gradient × attention".
# * **Why does all of layer 1 missing cost more than guessing?** The last layer norm and the table were trained with its
#   output; without it the model is still sure of itself, and wrong.
#
# ## Exercises
#
# 1. `previous_token_score(p: np.ndarray) -> np.ndarray`, $(\dots, T, T) \to (\dots)$, without a loop.
#    <details><summary>Hint</summary>`np.diagonal` takes an offset, and axes.</details>
# 2. `induction_score(p: np.ndarray, ids: np.ndarray) -> float`, $(T, T)$ and $(T,)$, without a loop.
#    <details><summary>Hint</summary>Compare `ids[:, None]` with `ids` moved by one, below the diagonal.</details>
# 3. `copies(generator: mt.Generator, count: int, length: int) -> np.ndarray`: sequences whose second half repeats the
#    first. Train on these: does the model still need letters to copy?
#    <details><summary>Hint</summary>The distance is always the same; score a head by that.</details>
# 4. `score_lost(model: GPT, ids: np.ndarray, writer: tuple, reader: tuple) -> float`: how much of the reader's
#    induction score goes with the writer.
#    <details><summary>Hint</summary>`without_heads` around `capture_attention`.</details>
#
# ## Quiz
#
# 1. An induction head at "a" looks at **(a)** the earlier "a", **(b)** the token after it, **(c)** the token just
#    before. — (b). (a) would copy "a" itself. (c) is the previous-token head's place.
# 2. It cannot be in layer 0 because **(a)** layer 0 is too narrow, **(b)** its keys must hold what another head wrote,
#    **(c)** layer 0 sees no positions. — (b). (a): width is not the matter. (c) is false: they come in at the bottom.
# 3. Switching off one of four induction heads hardly hurts. So **(a)** it does nothing, **(b)** others do the same,
#    **(c)** the scores are wrong. — (b). (a): alone it would carry much. (c): all four have the stripe.
# 4. Right answers stay few, then rise within a few dozen steps. That is **(a)** the warm-up, **(b)** noise, **(c)** two
#    parts that pay only together. — (c). (a) was over by step 30. (b) does not stay down.

# %% [markdown] exercise="05.1"
# ### Exercise 05.1: `previous_token_score`
#
# The mean weight that queries give to the token just before them, without a loop, for one map or for all heads at
# once. The first query has no token before it and does not count.
#
# ```python
# import numpy as np
#
#
# def previous_token_score(p):
#     """Attention p (..., T, T), T >= 2 -> array (...): the mean of p[i, i - 1] over i >= 1."""
#     raise NotImplementedError("the entries just below the diagonal, and their mean")
# ```
#
# <details><summary>Hint 1</summary>p[1, 0], p[2, 1], p[3, 2]: what do they form in the matrix?</details>
# <details><summary>Hint 2</summary>`np.diagonal` takes an offset, and the two axes that make the matrix.</details>
# <details><summary>Hint 3</summary>`np.diagonal(p, offset=-1, axis1=-2, axis2=-1)` is (..., T - 1).</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def previous_token_score(p):
#     return np.diagonal(p, offset=-1, axis1=-2, axis2=-1).mean(-1)
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * the token itself: `offset=-1` → `offset=0`
# * the token after: `offset=-1` → `offset=1`
# * the first query counts: `.mean(-1)` → `.sum(-1) / p.shape[-1]`
# * the first two axes for the last: `axis1=-2, axis2=-1` → `axis1=0, axis2=1`
#
# </details>

# %% [markdown] exercise="05.2"
# ### Exercise 05.2: `induction_score`
#
# For each query whose token occurred before: the weight on whatever followed those earlier occurrences, added up. The
# score is the mean over those queries. A follower stands before the query itself. Without a loop.
#
# ```python
# import numpy as np
#
#
# def induction_score(p, ids):
#     """Attention p (T, T), tokens ids (T,), at least one query with a follower -> float: the mean of
#     Σ_j p[i, j] over j < i with ids[j - 1] = ids[i], for the queries i that have such a j.
#     """
#     raise NotImplementedError("a table follows (T, T) of true and false; then sums of p where it is true")
# ```
#
# <details><summary>Hint 1</summary>Build follows[i, j]: does j follow an earlier ids[i]? Column 0 follows
# nothing.</details>
# <details><summary>Hint 2</summary>`ids[:, None] == ids[:-1]` is (T, T - 1): it belongs into the columns 1 … T -
# 1.</details>
# <details><summary>Hint 3</summary>Keep only j < i (`np.tri(T, k=-1, dtype=bool)`); mean over the rows where
# `follows.any(1)`.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def induction_score(p, ids):
#     T = len(ids)
#     follows = np.zeros((T, T), bool)
#     follows[:, 1:] = ids[:, None] == ids[:-1]
#     follows &= np.tri(T, k=-1, dtype=bool)
#     return float((p * follows).sum(1)[follows.any(1)].mean())
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * the occurrence, not its follower: `follows[:, 1:] = ids[:, None] == ids[:-1]` → `follows[:] = ids[:, None] == ids`
# * a token follows itself: `np.tri(T, k=-1, dtype=bool)` → `np.tri(T, dtype=bool)`
# * queries without a follower count: `[follows.any(1)]` → `[:]`
# * the token before, not the one after: `follows[:, 1:] = ids[:, None] == ids[:-1]` →
#   `follows[:, :-1] = ids[:, None] == ids[1:]`
# * the largest weight, not the sum: `(p * follows).sum(1)` → `(p * follows).max(1)`
#
# </details>

# %% [markdown] exercise="05.3"
# ### Exercise 05.3: `copies`
#
# Sequences whose second half repeats the first: letters drawn from 48, all different within a half. Train the lesson's
# model on these (targets are the ids one place later) and score its heads. Does it still need letters to copy, or is a
# fixed distance enough?
#
# ```python
# import numpy as np
#
# import minitransformer as mt
#
#
# def copies(generator, count, length):
#     """mt.Generator, count sequences, length 1..48 of a half -> integers (count, 2 length) in 0..47.
#
#     A half holds `length` different letters, any as likely as any other; the second repeats the first. All randomness
#     comes from the generator.
#     """
#     raise NotImplementedError("draw count times `length` different letters; put each beside itself")
# ```
#
# <details><summary>Hint 1</summary>A random order of all 48 letters has different ones at its first `length`
# places.</details>
# <details><summary>Hint 2</summary>Sorting random numbers gives a random order: `generator.uniform((count,
# 48)).argsort(axis=1)`.</details>
# <details><summary>Hint 3</summary>Cut it to `[:, :length]`, then `np.concatenate([half, half], axis=1)`.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def copies(generator, count, length):
#     half = generator.uniform((count, 48)).argsort(axis=1)[:, :length]
#     return np.concatenate([half, half], axis=1)
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * letters come twice: `generator.uniform((count, 48)).argsort(axis=1)[:, :length]` →
#   `generator.integers(0, 48, (count, length))`
# * one sequence for all: `generator.uniform((count, 48))` → `np.repeat(generator.uniform((1, 48)), count, axis=0)`
# * the half reversed: `[half, half]` → `[half, half[:, ::-1]]`
# * a generator of its own: `half = generator.uniform` → `half = mt.Generator(0).uniform`
# * only the first letters: `generator.uniform((count, 48))` → `generator.uniform((count, length))`
# * every letter twice: `np.concatenate([half, half], axis=1)` → `np.repeat(half, 2, axis=1)`
#
# </details>

# %% [markdown] exercise="05.4"
# ### Exercise 05.4: `path_patch`
#
# A pattern is not yet a cause. How much of the reader's induction score is lost when the writer is switched off? In
# the lesson's model it is nearly all for one writer and nearly nothing for the others.
#
# ```python
# import numpy as np
#
#
# def path_patch(model, ids, writer, reader):
#     """A GPT, ids (B, T), writer and reader as (layer, head) -> float: the reader's mean induction score over the
#     B texts, intact, minus that without the writer. In each text a letter comes again. The model is left as it was.
#     """
#     raise NotImplementedError("the reader's attention maps twice: intact, and inside model.without_heads([writer])")
# ```
#
# <details><summary>Hint 1</summary>`with model.evaluating(): logits, maps = model(ids, capture_attention=True)`:
# maps[layer] is (B, H, T, T).</details>
# <details><summary>Hint 2</summary>Measure twice, once inside `with model.without_heads([writer]):`. Both `with` undo
# themselves.</details>
# <details><summary>Hint 3</summary>Your `induction_score` of 05.2 (copy it, or import it: it lies beside this file)
# for each of the B
# maps, then the mean.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def path_patch(model, ids, writer, reader):
#     return _score(model, ids, [], reader) - _score(model, ids, [writer], reader)
#
#
# def _score(model, ids, off, reader):
#     layer, head = reader
#     with model.evaluating(), model.without_heads(off):
#         maps = model(ids, capture_attention=True)[1][layer][:, head]  # (B, T, T)
#     T, scores = ids.shape[1], []
#     for p, row in zip(maps, ids):
#         follows = np.zeros((T, T), bool)
#         follows[:, 1:] = row[:, None] == row[:-1]
#         follows &= np.tri(T, k=-1, dtype=bool)
#         scores.append((p * follows).sum(1)[follows.any(1)].mean())
#     return float(np.mean(scores))
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * the sign: `_score(model, ids, [], reader) - _score(model, ids, [writer], reader)` →
#   `_score(model, ids, [writer], reader) - _score(model, ids, [], reader)`
# * the reader is switched off: `_score(model, ids, [writer], reader)` → `_score(model, ids, [reader], reader)`
# * the writer's own score: `layer, head = reader` → `layer, head = (off or [reader])[0]`
# * head and layer swapped: `[1][layer][:, head]` → `[1][head][:, layer % 2]`
# * what is left, not what is lost: `return _score(model, ids, [], reader) - _score` → `return _score`
# * the first text only: `zip(maps, ids)` → `zip(maps[:1], ids[:1])`
#
# </details>
