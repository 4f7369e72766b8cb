"""Keep the import of Locust files that earlier runs stored, and of those that people wrote after them."""

from bench.application.bookinfo.pages import page_problem

__all__ = ["page_problem"]
