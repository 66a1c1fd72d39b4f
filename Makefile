# Two commands make the book and check it; both set up `.venv` themselves.
PYTHON := .venv/bin/python
# The stamp's name carries a checksum of what is asked for and of what is there, so that a change
# of either installs again.
STAMP = .venv/installed-$$({ cat pyproject.toml requirements.txt constraints.txt; $(PYTHON) -V; \
	LC_ALL=C ls -d .venv/lib/*/site-packages/*.dist-info; } 2>/dev/null | cksum | cut -d' ' -f1)
INSTALLED := $(shell echo $(STAMP))

.PHONY: help book test test-quick test-faults test-lowest test-runtime lint lab coursework release links serve bench clean env lock

help:
	@echo "make book         render the book into _build/html (quick when nothing changed)"
	@echo "make test         run the unit tests, every chapter, and the page tests"
	@echo "make lab          open the chapters in JupyterLab"
	@echo "make coursework   write editions for students and instructors, and autograders"
	@echo "make release      VERSION=0.2.0: version, changelog, a zip of all editions, and a tag"
	@echo "make links        ask every link of the book whether it still leads somewhere"
	@echo "make serve        show the rendered book on http://localhost:8000"
	@echo "make test-runtime run two chapters in environments that are not the book's (long)"
	@echo "make lint         check style and types"
	@echo "make test-quick   run the unit tests that are not slow, in a minute and a half"
	@echo "make test-faults  try a catalogue of faults and print how each was answered"
	@echo "make test-lowest  run unit tests and a chapter with the oldest versions allowed"
	@echo "make bench        what reading and ablating costs, as a ratio to running a network"
	@echo "make lock         write constraints.txt: all versions, and the hashes of their files"
	@echo "make clean        remove what was rendered, with all executed cells"
	@echo "The first of them sets up the Python environment in .venv; the others find it ready."

book: $(INSTALLED)
	@echo "Rendering the book: every chapter whose cells may have changed is run."
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PYTHON) -m utils.book.build

test: $(INSTALLED)
	@echo "Testing the code, the chapters and, where a browser is found, the rendered pages."
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist loadfile \
		--nbval-lax --nbval-current-env --nbval-cell-timeout=180 tests chapters

test-quick: $(INSTALLED)
	@echo "Testing the code without what is slow: no chapters, no pages, no faults."
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist loadfile -q \
		-m "not slow" --ignore tests/browser --ignore tests/faults tests

test-faults: $(INSTALLED)
	@echo "Trying other people's models, folders, tables and machines."
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 -q tests/faults

test-lowest: $(INSTALLED)
	@echo "Testing with the oldest versions that pyproject.toml allows, in .venv-lowest."
	@$(PYTHON) -m uv venv --quiet --allow-existing --python $(PYTHON) .venv-lowest
	@$(PYTHON) -m uv pip install --quiet --python .venv-lowest/bin/python \
		--resolution lowest-direct -e ".[book,test]"
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n 2 --dist loadfile -q \
		-m "not slow" --nbval-lax --nbval-current-env --nbval-cell-timeout=180 \
		--ignore tests/browser tests chapters/3_attention_sparsity.ipynb

test-runtime: $(INSTALLED)
	@$(PYTHON) tests/runtimes.py

lint: $(INSTALLED)
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy

lab: $(INSTALLED)
	@echo "Opening the chapters in JupyterLab; Ctrl-C here ends it."
	@$(PYTHON) -m jupyterlab --notebook-dir . chapters/1_introduction.ipynb

coursework: $(INSTALLED)
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PYTHON) -m utils.book.coursework make

release: $(INSTALLED)
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PYTHON) -m utils.book.release "$(VERSION)"

links: book
	@PYTHONPATH=. $(PYTHON) -c "from jupyter_book.cli.main import main; main()" \
		build --builder linkcheck .

serve: book
	@$(PYTHON) -m http.server 8000 --bind localhost --directory _build/html

bench: $(INSTALLED)
	@echo "Timing ours, others' ways and the plain forward pass in turns: some minutes."
	@$(PYTHON) -m benchmarks

clean:
	@echo "Removing _build."
	@rm -rf _build

env: $(INSTALLED)

# What is in constraints.txt stays as long as it fits; UPGRADE=--upgrade takes the newest versions.
lock:
	@[ -x $(PYTHON) ] || $(MAKE) env
	@$(PYTHON) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-emit-package seeing-sparsely --custom-compile-command "make lock" \
		$(UPGRADE) requirements.txt -o constraints.txt

$(INSTALLED):
	@found=; if ! $(PYTHON) -c "" 2>/dev/null; then \
		for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do \
			if $$candidate -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then \
				found=$$candidate; break; \
			fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "The book needs Python 3.11 or newer, and none was found: install it, then try again."; \
			exit 1; \
		fi; \
		echo "Making a Python environment in .venv with $$($$found --version)."; \
		$$found -m venv --clear .venv || { \
			echo "Python could not make a virtual environment: install its venv module" \
				"(on Debian and Ubuntu the package python3-venv), then try again."; \
			rm -rf .venv; exit 1; }; \
	fi
	@echo "Installing what the book needs into .venv (about 6 GB with PyTorch on Linux)."
	@if sed -n '/^uv==/,/[^\]$$/p' constraints.txt | \
		$(PYTHON) -m pip install --quiet --requirement /dev/stdin; then \
		$(PYTHON) -m uv pip install --quiet --compile-bytecode --python $(PYTHON) \
			-c constraints.txt -b constraints.txt -r requirements.txt \
			$(if $(UV_TORCH_BACKEND),--no-verify-hashes); \
	else \
		echo "uv could not be installed; going on with pip, which takes some minutes."; \
		$(PYTHON) -m pip install --quiet -r constraints.txt && \
		$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation -e .; \
	fi || { \
		echo "The installation stopped, and why is said above. If the package index cannot be" \
			"reached, check the network, then try again: what is installed stays."; exit 1; }
	@rm -f .venv/installed-* && touch $(STAMP)
