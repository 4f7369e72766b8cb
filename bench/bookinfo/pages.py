"""Keep the old import path for Locust files of earlier runs, and of users."""

from bench.application.bookinfo.pages import page_problem

__all__ = ["page_problem"]
