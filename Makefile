# ferry: see README.md. The tools that tests use come from the Go module proxy
# and from Debian's packages; `make tools` installs them below .tools.

SHELL := /bin/bash
export CGO_ENABLED ?= 0
export GOFLAGS := $(GOFLAGS) -trimpath

TOOLS := .tools/bin
TEST_TOOLS := $(addprefix $(TOOLS)/,registry versitygw crane regctl cosign2 cosign3 oras notation olareg)
CHECK_TOOLS := $(addprefix $(TOOLS)/,staticcheck govulncheck)
PLATFORMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X main.buildVersion=$(VERSION)

.PHONY: build demo test check cover soak fuzz bench tools release clean

build:
	go build -ldflags '$(LDFLAGS)' -o bin/ferry ./cmd/ferry

# The whole trip on this machine: two registries, a folder as the medium.
demo: build
	go run ./cmd/ferry-demo -ferry bin/ferry

test: tools
	go test -timeout 20m ./...

# What a change must pass before it is committed. govulncheck asks a server
# for known vulnerabilities, and is left out where that can not be reached.
check: tools $(CHECK_TOOLS)
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'run gofmt -w on these'; exit 1; }
	go vet ./...
	$(TOOLS)/staticcheck ./...
	CGO_ENABLED=1 go test -race -timeout 40m ./...
	@if $(TOOLS)/govulncheck ./... ; then :; else code=$$?; \
	  if [ $$code = 3 ]; then exit 3; fi; echo 'govulncheck could not run here (exit code '$$code')'; fi

# How much of the packages that everything rests on their own tests reach, in
# percent of statements; less than COVER_LEAST fails.
COVER := verify bundle internal/extract
COVER_LEAST := 90
cover: tools
	@set -o pipefail; go test -short -cover $(addprefix ./,$(COVER)) | awk '{ print } \
	  match($$0, /coverage: [0-9.]+/) { seen++; if (substr($$0, RSTART + 10, RLENGTH - 10) + 0 < $(COVER_LEAST)) low = 1 } \
	  END { if (low || seen != $(words $(COVER))) { print "want $(COVER_LEAST)% of each"; exit 1 } }'

# The long forms of tests, hours of them, one package after the other;
# docs/soak.md says what each does. One of them: make soak SOAK='TestKill$$'
SOAK := ^(TestEveryByte|TestEveryCut|TestFaultMatrix|TestKill|TestKillAtEveryWrite|TestDisk|TestCrowd|TestMemory|TestLargeBlob|TestMutants)$$
soak: tools
	FERRY_SOAK=1 go test -count 1 -p 1 -timeout 6h -v -run '$(SOAK)' ./bundle ./internal/transfer ./cmd/ferry ./internal/mutants

# Every fuzz target, one after the other, each for FUZZTIME; FUZZ says which.
# Only ferry's own code is watched for what inputs reach: to build that of
# cosign and Amazon so too, as go test -fuzz does, takes many minutes.
FUZZTIME ?= 10s
FUZZ ?= ^Fuzz
fuzz:
	@set -e; bin=$$(mktemp -d); trap 'rm -r "$$bin"' EXIT; built=; \
	git grep -oE '^func Fuzz[A-Za-z]+' -- '*_test.go' | sed -E 's#/[^/]*:func # #' | while read -r dir target; do \
	  grep -qE '$(FUZZ)' <<< "$$target" || continue; \
	  if [ "$$built" != "$$dir" ]; then go test -c -gcflags=ferry/...=-d=libfuzzer -o "$$bin/fuzz.test" ./$$dir; built=$$dir; fi; \
	  echo "$$dir $$target"; \
	  (cd $$dir && "$$bin/fuzz.test" -test.run '^$$' -test.fuzz "^$$target\$$" -test.fuzztime $(FUZZTIME) -test.parallel 1 \
	    -test.fuzzcachedir "$$(go env GOCACHE)/fuzz/ferry/$$dir") < /dev/null; \
	done

# Flags go in ARGS: make bench ARGS='-size 64MiB -rounds 1'; bench/ says what
# is measured. The machine should do nothing else meanwhile.
bench: tools build
	go run ./bench -ferry bin/ferry $(ARGS)

release:
	@for p in $(PLATFORMS); do \
	  os=$${p%/*} arch=$${p#*/}; out=dist/ferry-$$os-$$arch; [ $$os = windows ] && out=$$out.exe; \
	  echo $$out; GOOS=$$os GOARCH=$$arch go build -ldflags '$(LDFLAGS)' -o $$out ./cmd/ferry || exit 1; \
	done; cd dist && sha256sum ferry-* > SHA256SUMS

clean:
	rm -rf bin dist

# --- tools ---

tools:
	@./.ci/apt skopeo:skopeo bsdtar:libarchive-tools
	@$(MAKE) --no-print-directory -j2 $(TEST_TOOLS)

INSTALL = GOBIN=$(abspath $(TOOLS)) go install -ldflags '-s -w'
# Two versions of one command have the same name.
INSTALL_AS = mkdir -p $(TOOLS)/tmp-$(notdir $@) && GOBIN=$(abspath $(TOOLS)/tmp-$(notdir $@)) go install -ldflags '-s -w' $(1) \
  && mv $(TOOLS)/tmp-$(notdir $@)/cosign $@ && rmdir $(TOOLS)/tmp-$(notdir $@)

$(TOOLS)/registry: ; $(INSTALL) github.com/distribution/distribution/v3/cmd/registry@v3.1.2
$(TOOLS)/versitygw: ; $(INSTALL) github.com/versity/versitygw/cmd/versitygw@v1.8.0
$(TOOLS)/crane: ; $(INSTALL) github.com/google/go-containerregistry/cmd/crane@v0.22.1
$(TOOLS)/regctl: ; $(INSTALL) github.com/regclient/regclient/cmd/regctl@v0.11.7
$(TOOLS)/cosign2: ; $(call INSTALL_AS,github.com/sigstore/cosign/v2/cmd/cosign@v2.6.5)
$(TOOLS)/cosign3: ; $(call INSTALL_AS,github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3)
# The versions of these are in a module of their own, with the checksums of all
# that they are built of: the proxy has no list of their versions, which
# go install COMMAND@VERSION asks for.
IN_MODULE = cd .ci/tools && GOBIN=$(abspath $(TOOLS)) go install -ldflags '-s -w'
$(TOOLS)/oras: ; $(IN_MODULE) oras.land/oras/cmd/oras
$(TOOLS)/notation: ; $(IN_MODULE) github.com/notaryproject/notation/cmd/notation
$(TOOLS)/olareg: ; $(IN_MODULE) github.com/olareg/olareg/cmd/olareg
$(TOOLS)/staticcheck: ; $(INSTALL) honnef.co/go/tools/cmd/staticcheck@v0.8.2
$(TOOLS)/govulncheck: ; $(INSTALL) golang.org/x/vuln/cmd/govulncheck@v1.8.0
