"""BLAS's threads: held back while anybody asks for it, and back when the last has left."""

from __future__ import annotations

from threadpoolctl import threadpool_info

from earshot import blas


def test_blas_threads_come_back_when_the_last_of_several_users_leaves() -> None:
    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    before, one, two = threads(), blas.one_thread(), blas.one_thread()
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert set(threads()) == {1}
    two.__exit__(None, None, None)
    assert threads() == before
