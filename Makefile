# One list of commands, used by people, by pre-commit and by .ci/run.
.PHONY: fmt lint types test check

fmt:
	ruff check --fix .
	ruff format .

lint:
	ruff check .
	ruff format --check .

types:
	pyright

test:
	python -m pytest

check: lint types test
