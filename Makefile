# weft: build, show, test. `make` alone prints what there is.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GOFLAGS_BUILD := -trimpath -ldflags '-s -w -X main.version=$(VERSION)'

# Where goroutines share something: these packages also run under the race detector.
RACE := $(wildcard internal/agent internal/allocator internal/cni internal/cni/install \
	internal/kernel/ct internal/kernel/device internal/kernel/ipip internal/kernel/nflog internal/kernel/nft internal/kernel/qos internal/kernel/wg \
	internal/lab internal/lab/wire internal/reconcile internal/run internal/speaker internal/startup internal/store internal/store/mem)

# In CI a test that cannot run is a failure, not a skip.
ifdef CI
export WEFT_NO_SKIP := 1
endif

# Tests make network namespaces. An ordinary user gets the right to do so from a
# user namespace, in which the loopback interface is down at first.
ROOT := $(if $(filter 0,$(shell id -u)),,unshare --user --map-root-user --net --mount \
	sh -c 'ip link set lo up && exec "$$@"' sh)

.DEFAULT_GOAL := help
.PHONY: help build demo demo-setup k8s-setup test test-k8s race cross lint bench setup vm clean image manifests crds reference

help: ## print this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

build: ## compile bin/weft and bin/weft-cni: static, no C
	@CGO_ENABLED=0 $(GO) build $(GOFLAGS_BUILD) -o bin/ ./cmd/weft ./cmd/weft-cni
	@ln -sf weft bin/calicoctl && ln -sf weft bin/kubectl-weft # its two other voices

demo: demo-setup build ## three nodes and six pods on this machine: their routes, and who reaches whom
	@bin/weft lab run -f examples/quickstart.yaml

test: setup vm build cross race ## all tests; root is not needed
	@$(ROOT) $(GO) test -timeout 40m ./...
	@$(GO) -C build/manifests test -count=1 ./... # a module of its own; what it reads is not in it, so no cached result

test-k8s: k8s-setup ## a real Kubernetes cluster of three nodes, and all suites on it; needs root, `test/k8s/run help` tells more
	@test/k8s/run

race: setup ## the concurrent packages under the race detector
	@$(if $(RACE),$(ROOT) env CGO_ENABLED=1 $(GO) test -race -short -timeout 20m $(addprefix ./,$(RACE)))

cross: ## compile for the other architecture that is supported: arm64
	@CGO_ENABLED=0 GOOS=linux GOARCH=arm64 $(GO) build -trimpath -o /dev/null ./cmd/...

crds: ## write deploy/crds, the custom resource definitions, from api/v3
	@$(GO) run ./build/crds

reference: ## write docs/reference, the pages of all commands and kinds, from the code
	@$(GO) run ./build/reference

lint: ## formatting (gofumpt), vet, staticcheck
	@unformatted=$$($(GO) tool gofumpt -l .) && if [ -n "$$unformatted" ]; then \
		echo "not formatted, run 'go tool gofumpt -w .':"; echo "$$unformatted"; exit 1; fi
	@$(GO) vet ./...
	@$(GO) tool staticcheck ./...

bench: setup build ## the benchmarks behind docs/performance.md
	@$(GO) test -run '^$$' -bench . -benchmem -timeout 30m ./bench/... ./internal/...

setup: ## install the packages of build/debian-packages.txt that are missing, and fetch modules
	@build/setup
	@$(GO) mod download # now: tests may run where there is no network
	@$(GO) -C build/manifests mod download

k8s-setup: # all packages
	@build/setup k8s

demo-setup: # only the packages that a demo needs
	@build/setup demo

vm: setup ## get the kernel of the virtual machine in which some tests run, once
	@test/vm/run --prepare || [ -z "$(CI)" ] # now: as above; without it those tests are skipped

clean: ## remove what was built
	@rm -rf bin

# Kubernetes: one image for all roles, and the manifests that name it. IMAGE and VERSION
# may be given, and with SET settings of the chart: SET="ipv4pool.cidr=10.244.0.0/16 mtu=1400".
IMAGE       ?= localhost/weft
IMAGE_ARCHS ?= amd64 arm64
IMAGE_TAR   ?= bin/weft-image.tar
IMAGE_BIN   ?= bin/image
PLUGINS     := $(addprefix github.com/containernetworking/plugins/plugins/, \
	meta/portmap meta/bandwidth main/loopback ipam/host-local)

image: ## write bin/weft-image.tar: an OCI archive with all that a node needs
	@for arch in $(IMAGE_ARCHS); do \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build $(GOFLAGS_BUILD) -o $(IMAGE_BIN)/$$arch/ \
			./cmd/weft ./cmd/weft-cni $(PLUGINS) || exit; \
	done
	@$(GO) run ./build/image -o $(IMAGE_TAR) -name $(IMAGE):$(VERSION) -name $(IMAGE):latest \
		-label org.opencontainers.image.title=weft -label org.opencontainers.image.version=$(VERSION) \
		-label org.opencontainers.image.source=https://github.com/weft-net/weft \
		-label org.opencontainers.image.licenses=Apache-2.0 \
		-time $$(git log -1 --format=%ct 2>/dev/null || echo 0) -entrypoint /usr/bin/weft \
		-link /usr/bin/calicoctl=weft -link /usr/bin/kubectl-weft=weft $(addprefix -arch ,$(IMAGE_ARCHS)) \
		$(IMAGE_BIN)/{arch}/weft=/usr/bin/weft \
		$(foreach plugin,weft-cni $(notdir $(PLUGINS)),$(IMAGE_BIN)/{arch}/$(plugin)=/opt/cni/bin/$(plugin))

manifests: crds ## render the chart: into deploy/*.yaml, and into bin/*.yaml for IMAGE, VERSION and SET
	@$(GO) -C build/manifests run .
	@mkdir -p bin
	@$(GO) -C build/manifests run . -out ../../bin -image $(IMAGE):$(VERSION) $(addprefix -set ,$(SET))
