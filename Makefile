# Two commands do all the set-up on a fresh machine: `make lab` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
LAB    ?= topologies/getvpn-basic.yml

BIN := $(VENV)/bin

.PHONY: help lab down test lint bench clean

help:
	@echo "make lab     install labctl into $(VENV), bring up an encrypted GETVPN lab and prove it (needs no root, no Docker)"
	@echo "make down    take that lab down again"
	@echo "make test    install what the tests need, then lint, type check and run every test"
	@echo "make lint    ruff and mypy only"
	@echo "make bench   the benchmarks (figures and ratios, nothing is asserted)"
	@echo "make clean   remove what make made"

# The stamps keep `make lab` quick the second time.
$(VENV)/.labctl: pyproject.toml
	@.ci/venv $(PYTHON) $(VENV) .
	@touch $@

$(VENV)/.labctl-test: pyproject.toml
	@.ci/venv $(PYTHON) $(VENV) '.[test]'
	@touch $@ $(VENV)/.labctl

lab: $(VENV)/.labctl
	@$(BIN)/labctl up $(LAB) --runtime namespaces
	@$(BIN)/labctl test
	@echo
	@echo "The lab is up. Things to try next ($(BIN) holds labctl; 'source $(BIN)/activate' puts it on your PATH):"
	@echo "  $(BIN)/labctl ps                                   who is registered with whom"
	@echo "  $(BIN)/labctl exec h1 -- ping -c 3 h2              a ping from site 1 to site 2"
	@echo "  $(BIN)/labctl capture pe1:eth0 -w - | tshark -r -  what the provider sees of it: ESP, addresses untouched"
	@echo "  $(BIN)/labctl logs ks1                             what the key server says"
	@echo "  $(BIN)/labctl shell ce1                            a shell on a group member"
	@command -v ping >/dev/null || echo "  (nodes use this machine's programs, and it has no ping yet: apt-get install iputils-ping)"
	@echo "  $(BIN)/labctl down                                 and it is gone, without a trace"

down: $(VENV)/.labctl
	@$(BIN)/labctl down

test: $(VENV)/.labctl-test
	@.ci/test $(VENV)

lint: $(VENV)/.labctl-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@PATH="$(CURDIR)/$(BIN):$$PATH" .ci/types

bench: $(VENV)/.labctl-test
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
