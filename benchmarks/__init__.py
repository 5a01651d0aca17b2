"""Contenders, tasks, raw results, scores: each contender through one small contract, on the same trials.

In: real speech in a folder. Out: raw results (`results/`), then tables and plots made from them. See README.md.
"""
