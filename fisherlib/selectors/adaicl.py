"""Maximum coverage of what the model finds hard, on a graph of neighbours (AdaICL, Mavromatis et al. 2023)."""

import numpy as np
from datasets import Dataset
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from fisherlib.features import TokenFeatures
from fisherlib.greedy import Budget
from fisherlib.selectors._contract import Ranking, selector
from fisherlib.selectors._pooled import centred, mean_nll


@selector("AdaICL")
def adaicl(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    examples: int | None,
    tokens: float | int | None,
    seed: int,
    discounted: bool = False,
    neighbours: int = 15,
    hard: float | int = 0.5,
) -> Ranking:
    """Hard examples whose neighbourhoods cover as many hard examples as possible, greedily. `seed` is not used.

    Hard: the share `hard` of the pool with the highest mean `nll` per token. Each example votes for its nearest
    `neighbours` by cosine, and a hard one covers its ego-net (see `ego_nets`). AdaICL: what has been covered counts no
    more. When all that can be covered is, every example counts again (our choice, as if the next of the paper's phases
    began; the authors' code stops below the budget). AdaICL+ (`discounted`): what has been covered t times counts 10^-t.
    Ties go to the more uncertain, with `discounted` up to rounding. Under a budget of tokens each pick is the best of those
    that fit. When no hard example is left that covers any, the others follow in falling order of `nll`. Both our choice.
    Source: Mavromatis et al., arXiv 2310.20046; defaults are those of the authors' code. There the uncertainty is that of a
    prompted model and is measured again in every phase; here it is the base model's, once (our choice).
    Cost: O(N^2 d) time for the graph, then O(total size of the ego-nets) for each pick. For budgets of examples, the first
    picks, until everything counts again, cover at least 1 - 1/e of the most that so many could. Raises `ValueError` for
    features without `nll`, less than one neighbour, or a share outside (0, 1].
    """
    if neighbours < 1:
        raise ValueError(f"expected at least 1 of neighbours, got {neighbours}: raise it")
    if not 0 < hard <= 1:
        raise ValueError(f"expected the share of hard examples above 0 and at most 1, got {hard}: change it")
    nll = mean_nll(features)
    ids, X = centred(features)
    by_nll = np.argsort(-nll, kind="stable")
    uncertain = by_nll[: max(int(hard * len(ids) + 1e-9), 1)]
    budget = Budget(features.lengths.numpy()[ids].astype(float), examples, tokens)
    nets = ego_nets(X, uncertain, neighbours)
    picks = uncertain[cover(nets, budget.price[uncertain], budget.amount, discounted)]
    rest = by_nll[~np.isin(by_nll, picks)]
    name = "AdaICL+" if discounted else "AdaICL"
    return Ranking(ids[np.concatenate([picks, rest])], {"method": name, "neighbours": neighbours, "hard": hard})


def ego_nets(X: Float[np.ndarray, "n d"], hard: Int[np.ndarray, " h"], neighbours: int) -> csr_array:
    """Who covers whom, [h, h]: row j holds a 1 for each member of the ego-net of example `hard[j]`.

    Members are the hard examples that vote for it, and the hard examples that vote for one of these: everything happens
    among hard examples, though the others take part in who is nearest to whom. It is no member itself, so a pick does not
    cover itself. Source: the authors' code.
    """
    if len(X) == 1:
        return csr_array((len(hard), len(hard)))
    with threadpool_limits(1):  # one thread: sums in one order, so one answer
        search = NearestNeighbors(n_neighbors=min(neighbours, len(X) - 1), metric="cosine").fit(X)
        votes = csr_array(search.kneighbors_graph())[hard][:, hard]  # a row has its votes, never one for itself
    nets = csr_array((votes + votes @ votes).T)
    nets.setdiag(0)
    nets.eliminate_zeros()
    nets.data[:] = 1
    return nets


def cover(
    nets: csr_array, costs: Float[np.ndarray, " h"], budget: float | int, discounted: bool = False
) -> Int[np.ndarray, " m"]:
    """The greedy order of `adaicl`: positions in `nets`, as long as one fits that covers anyone. Ties: the lowest."""
    times = np.zeros(len(costs))  # that each has been covered
    picks, free = [], np.ones(len(costs), dtype=bool)
    while (fits := free & (costs <= budget)).any():
        worth = 0.1**times if discounted else (times == 0).astype(float)
        gains = np.where(fits, nets @ worth, 0)
        if gains.max() > 0:
            best = int(gains.argmax())
            picks.append(best)
            free[best] = False
            budget -= costs[best]
            times[nets.indices[nets.indptr[best] : nets.indptr[best + 1]]] += 1
        elif times.any():
            times[:] = 0  # all is covered that can be: once more
        else:
            break
    return np.array(picks, dtype=np.int64)
