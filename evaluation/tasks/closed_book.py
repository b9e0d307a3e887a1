"""What closed_book.yaml refers to; lm-eval finds functions only beside the YAML file."""

from evaluation.hallucination.closed_book import mean_defined, process_results

__all__ = ["mean_defined", "process_results"]
