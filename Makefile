# One list of commands, used by people, by pre-commit and by .ci/run.
.PHONY: fmt lint types test check soak attack train-demo node-schemas fit-workflows comfy-thumbnails comfy-pictures

fmt:
	ruff check --fix .
	ruff format .

lint:
	ruff check .
	ruff format --check .
	codespell

types:
	pyright

test:
	python -m pytest

check: lint types test

# Ten minutes of kills, signals and damaged files; SOAK_MINUTES=60 for more.
SOAK_MINUTES ?= 10
soak:
	python -m loopanimate_training.soak --minutes $(SOAK_MINUTES)

# The standing attack of tests/attack for longer: hostile servers, damaged files, signals. MINUTES=30 for half an hour;
# MINUTES=0 ARGS="-k random_moments" for the signals alone, at least SIGNALS of them.
MINUTES ?= 10
SIGNALS ?= 200
attack:
	ATTACK_MINUTES=$(MINUTES) ATTACK_SIGNALS=$(SIGNALS) python -m pytest -s tests/attack $(ARGS)

# The whole training on two cores: videos, three stages, a kill, a bundle, a loop. Nothing is downloaded.
WORK ?= work/demo
train-demo:
	python -m loopanimate_training.demo $(WORK)

# Files that are made from the nodes: their golden schemas, the sizes in the templates, pictures of real runs.
HELPERS = PYTHONPATH=tests/support:tests/fakes
node-schemas:
	$(HELPERS) python tests/support/schema_golden.py

fit-workflows:
	$(HELPERS) python tests/nodes/fit_workflows.py

comfy-thumbnails:
	$(HELPERS) python tests/comfy/browser/thumbnails.py $(ARGS)

comfy-pictures:
	$(HELPERS) python tests/comfy/browser/pictures.py $(ARGS)
