"""Pairs of answers to learn from: made of a model's own answers, stored, and put in batches.

Modules:

    mining       samples answers and pairs the better with the worse
    pairs        what two answers give: a pair, or a reason for none
    pairs_file   pairs of a run as JSON
    pair_trees   pairs to items with two conversations per pair
    pair_set     these items as a dataset, with the reference's log-probabilities
"""
