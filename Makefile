# StoatMQ: three programs, their libraries, their tests.
#
#   make          build/stoatmq, build/stoatctl, build/stoatperf; and build/stoatdump
#   make run      the same, then the broker with its data in ./data
#   make test     everything built, every test passed
#   make asan     all tests under AddressSanitizer and UBSan; make tsan: under ThreadSanitizer
#   make model         COUNT=N SEED=S: random commands, compared with a reference of what the broker should do
#   make differential  COUNT=N SEED=S FEATURES=ttl,...: the same scripts on RabbitMQ, every answer compared
#   make crash    KILLS=N SEED=S: the broker killed N times under load, and with every planted bug
#   make power-cuts  COUNT=N SEED=S: the power cut N times under load, on an ext4 in a file
#   make disk-full COUNT=N: full disks of three kinds, each filled and drained N times
#   make memory-limit MEMORY_OCTETS=N: N octets (10e9) to queues that nobody reads, in a control group of 256 MiB
#   make crash-states  COUNT=N SEED=S: what power cuts can leave of the store, enumerated
#   make bit-rot  COUNT=N SEED=S KINDS='flip zero truncate swap old note': data files damaged while nobody looks
#   make hostile  COUNT=N: so many half-open sockets, idle connections and the like, and what others notice of them
#   make bench    the benchmarks in tests/bench; make bench-tls: what TLS costs
#   make fuzz     FUZZ_SECONDS=N FUZZ='x y': each target of tests/fuzz for so long, under sanitizers
#   make testssl  what testssl.sh has to say of the TLS listener: nothing above LOW
#   make cover    which branches of amqp/ the unit tests and the fuzz corpora take: 95 % at least
#   make format   clang-format over the tree
#   make install  to $(DESTDIR)$(PREFIX), with a systemd unit and its user; the configuration to $(DESTDIR)/etc
#
# A folder is a library, and a library may use those below it: that is the order of LIBRARIES. A file that
# appears in a folder is built; nothing is listed by name. BUILD and SANITIZE make a second build beside the
# first, which is how `make asan` works.

# Without a -j of the caller's own, use every core; sub-makes inherit it.
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc)
endif

# Goals that are given together are reached one after the other: some are makes of their own, which would
# write the same files at the same time.
ifneq ($(if $(filter 0,$(MAKELEVEL)),$(word 2,$(MAKECMDGOALS))),)
.PHONY: in-turn $(MAKECMDGOALS)
$(MAKECMDGOALS): in-turn ;
in-turn:
	@for goal in $(MAKECMDGOALS); do $(MAKE) --no-print-directory $$goal || exit; done
else

BUILD    ?= build
SANITIZE ?=
PREFIX   ?= /usr/local
CC       ?= cc
VERSION  := 0.1.0

WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-qual \
            -Wwrite-strings -Wvla -Wundef -Wformat=2 -Wimplicit-fallthrough
HARDEN   := -fstack-protector-strong -fstack-clash-protection -fcf-protection -fPIE -D_FORTIFY_SOURCE=2
ifneq ($(SANITIZE),)
HARDEN   := -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer -fPIE
endif
CPPFLAGS := -I. -Ibroker -D_GNU_SOURCE -DSTOATMQ_VERSION='"$(VERSION)"'
CFLAGS   ?= -O2 -g
ALL_CFLAGS  = -std=c17 -pthread $(CFLAGS) $(WARNINGS) $(HARDEN) $(CPPFLAGS) -MMD -MP
ALL_LDFLAGS = -pthread -pie -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed,--compress-debug-sections=zlib $(LDFLAGS) $(if $(SANITIZE),-fsanitize=$(SANITIZE))

# From the top of the picture in the style guide to its bottom: each may use what stands after it.
LIBRARIES := manage session core access net store amqp base
DIR_manage := broker/manage
DIR_session := broker/session
DIR_core := broker/core
DIR_access := broker/access
DIR_net := broker/net
DIR_store := store
DIR_amqp := amqp
DIR_base := broker/base

BROKER_LIBS := -lseccomp -lssl -lcrypto -llmdb -lpcre2-8 -levent_core -levent_extra -ljansson -lm
TOOL_LIBS   := -lcurl -ljansson

objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(sort $(wildcard $(1)/*.c)))
archive = $(foreach l,$(1),$(BUILD)/lib$(l).a)

PROGRAMS := $(BUILD)/stoatmq $(BUILD)/stoatctl $(BUILD)/stoatperf $(BUILD)/stoatdump
SERVER_OBJECTS := $(filter-out $(BUILD)/obj/broker/main.o,$(call objects,broker))
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(sort $(wildcard tests/unit/test_*.c)))
SIM := $(BUILD)/sim
MODEL := $(BUILD)/model
BENCHES := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(sort $(wildcard tests/bench/*.c)))

.PHONY: all run test check asan tsan differential crash disk-full memory-limit power-cuts crash-states bit-rot hostile bench bench-tls cover cover-tests format install clean deps test-deps tests
.DELETE_ON_ERROR:
.SECONDARY:

all: deps
	@$(MAKE) --no-print-directory $(PROGRAMS)

deps:
	@etc/deps build

test-deps:
	@etc/deps test

run: all
	exec $(BUILD)/stoatmq --data-dir ./data

# One line a file; V=1 shows the commands.
ifeq ($(V),)
say = @printf '  %-4s %s\n' $(1) $(patsubst $(BUILD)/%,%,$@);
endif

$(foreach l,$(LIBRARIES),$(eval $(BUILD)/lib$(l).a: $(call objects,$(DIR_$(l)))))
$(BUILD)/libserver.a: $(SERVER_OBJECTS)
SERVER_LIBS := $(BUILD)/libserver.a $(call archive,$(LIBRARIES))
$(BUILD)/libtest.a: $(call objects,tests/lib)
$(BUILD)/lib%.a:
	@mkdir -p $(@D)
	@rm -f $@
	$(call say,AR)$(AR) rcs $@ $^

# What stands for base/fault.h's other half in this program.
$(BUILD)/obj/tests/states/%.o: CPPFLAGS += -DSTOATMQ_FAULTS
$(BUILD)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(ALL_CFLAGS) -c -o $@ $<



$(BUILD)/stoatmq: $(BUILD)/obj/broker/main.o $(SERVER_LIBS)
	$(call say,LD)$(CC) -o $@ $^ $(ALL_LDFLAGS) $(BROKER_LIBS)

# The same broker with base/fault.h filled in, for tests: the files that include it are compiled anew.
FAULTY := $(shell grep -ls '"base/fault.h"' broker/*.c broker/*/*.c store/*.c)

$(BUILD)/obj/faults/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(ALL_CFLAGS) -DSTOATMQ_FAULTS -c -o $@ $<

$(BUILD)/stoatmq-faults: $(BUILD)/obj/broker/main.o $(FAULTY:%.c=$(BUILD)/obj/faults/%.o) $(BUILD)/obj/faults/tests/faults/fault.o $(SERVER_LIBS)
	$(call say,LD)$(CC) -o $@ $^ $(ALL_LDFLAGS) $(BROKER_LIBS)

# stoatctl reads a store's definitions as the broker does, and so has much of it.
$(BUILD)/stoatctl: $(filter $(BUILD)/obj/tools/stoatctl%,$(call objects,tools)) $(SERVER_LIBS)
	$(call say,LD)$(CC) -o $@ $^ $(ALL_LDFLAGS) $(BROKER_LIBS) $(TOOL_LIBS)

$(BUILD)/stoatdump: $(BUILD)/obj/tools/dump.o $(call archive,store base)
	$(call say,LD)$(CC) -o $@ $^ $(ALL_LDFLAGS) -llmdb

PERF_OBJECTS := $(filter $(BUILD)/obj/tools/stoatperf%,$(call objects,tools))

$(BUILD)/stoatperf: $(PERF_OBJECTS) $(call archive,net amqp base)
	$(call say,LD)$(CC) -o $@ $^ $(ALL_LDFLAGS) -lssl -lcrypto -ljansson -lm

# A unit test may use the whole broker and tests/lib; those of stoatperf's files use these too.
$(filter $(BUILD)/unit/test_stoatperf_%,$(UNIT_TESTS)): $(filter-out %/stoatperf.o,$(PERF_OBJECTS))
$(BUILD)/unit/%: $(BUILD)/obj/tests/unit/%.o $(BUILD)/libtest.a $(SERVER_LIBS)
	@mkdir -p $(@D)
	$(call say,LD)$(CC) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(ALL_LDFLAGS) $(BROKER_LIBS) -lcheck -lsubunit -lm

# The broker under random clients and crashes, from a seed.
$(SIM): $(call objects,tests/sim) $(BUILD)/libtest.a $(SERVER_LIBS)
	$(call say,LD)$(CC) -o $@ $^ $(ALL_LDFLAGS) $(BROKER_LIBS) -lcheck -lsubunit -lm

# The store, faults included, under every crash that its writes and syncs allow.
STATES := $(BUILD)/crash_states

$(STATES): $(call objects,tests/states) $(patsubst %.c,$(BUILD)/obj/faults/%.o,$(filter store/%,$(FAULTY))) $(call archive,store base)
	$(call say,LD)$(CC) -o $@ $^ $(ALL_LDFLAGS) -Wl,--wrap=salvage_is_due -llmdb

# The same commands to the broker and to a reference of what it should do.
$(MODEL): $(call objects,tests/model) $(BUILD)/libtest.a $(SERVER_LIBS)
	$(call say,LD)$(CC) -o $@ $^ $(ALL_LDFLAGS) $(BROKER_LIBS)

$(BUILD)/bench/%: $(BUILD)/obj/tests/bench/%.o $(BUILD)/libtest.a $(SERVER_LIBS)
	@mkdir -p $(@D)
	$(call say,LD)$(CC) -o $@ $^ $(ALL_LDFLAGS) $(BROKER_LIBS) -lcheck -lsubunit -lm

tests: $(PROGRAMS) $(BUILD)/stoatmq-faults $(UNIT_TESTS) $(SIM) $(MODEL) $(STATES)

test: test-deps
	@$(MAKE) --no-print-directory tests
	@tests/run --build $(BUILD)

# The quick ones: unit tests only, quiet unless something fails.
check: test-deps
	@$(MAKE) --no-print-directory $(UNIT_TESTS)
	@tests/run --build $(BUILD) --quiet unit

asan:
	@$(MAKE) --no-print-directory test BUILD=build/asan SANITIZE=address,undefined

tsan:
	@$(MAKE) --no-print-directory test BUILD=build/tsan SANITIZE=thread

COUNT    ?= 10000
SEED     ?= 0
FEATURES ?= all
# The caller's COUNT, or this.
count     = $(if $(filter file,$(origin COUNT)),$(1),$(COUNT))
# The environment of a crash test that is run by itself.
rig       = TEST_BUILD=$(BUILD) PYTHONPATH=tests/lib PYTHONDONTWRITEBYTECODE=1

.PHONY: model
model: test-deps
	@$(MAKE) --no-print-directory $(MODEL)
	@$(MODEL) --seed $(SEED) --count $(call count,100000)

differential:
	@etc/deps differential
	@$(MAKE) --no-print-directory $(BUILD)/stoatmq
	@TEST_BUILD=$(BUILD) tests/differential/differential.py --count $(COUNT) --seed $(SEED) --features '$(FEATURES)'

KILLS ?= 500

crash: test-deps
	@$(MAKE) --no-print-directory $(BUILD)/stoatmq $(BUILD)/stoatmq-faults
	@TEST_BUILD=$(BUILD) tests/crash/kills.py --kills $(KILLS) --seed $(SEED)

power-cuts: test-deps
	@$(MAKE) --no-print-directory $(BUILD)/stoatmq $(BUILD)/stoatmq-faults
	@$(rig) TEST_POWER_ROUNDS=$(call count,100) TEST_POWER_SEED=$(SEED) \
		tests/crash/test_power.py test_what_was_confirmed_survives

DISK_FULL_COUNT := $(if $(filter-out file,$(origin COUNT)),$(COUNT),50)

disk-full: test-deps
	@$(MAKE) --no-print-directory $(BUILD)/stoatmq $(BUILD)/stoatctl
	@TEST_BUILD=$(BUILD) TEST_DISK_FULL_CYCLES=$(DISK_FULL_COUNT) PYTHONPATH=tests/lib /usr/bin/python3 \
		tests/crash/test_disk_full.py

MEMORY_OCTETS ?= 10e9

memory-limit: test-deps
	@$(MAKE) --no-print-directory $(BUILD)/stoatmq
	@TEST_BUILD=$(BUILD) TEST_MEMORY_LIMIT_OCTETS=$(MEMORY_OCTETS) PYTHONPATH=tests/lib /usr/bin/python3 \
		tests/crash/test_memory_limit.py

crash-states: test-deps
	@$(MAKE) --no-print-directory $(STATES)
	@$(STATES) --count $(call count,20000) --seed $(SEED) --jobs $$(nproc)

KINDS    ?= flip

bit-rot: test-deps
	@$(MAKE) --no-print-directory $(BUILD)/stoatmq $(BUILD)/stoatmq-faults
	@$(rig) TEST_ROT_COUNT=$(call count,2000) TEST_ROT_SEED=$(SEED) TEST_ROT_KINDS='$(KINDS)' \
		tests/crash/test_rot.py test_damage_at_rest

# With times, which a machine with other work spoils: `chrt -r 1 make hostile` goes before it.
hostile: test-deps
	@$(MAKE) --no-print-directory $(BUILD)/stoatmq $(BUILD)/stoatctl $(BUILD)/stoatperf
	@for each in tests/hostile/test_*.py; do \
	    $(rig) TEST_HOSTILE_COUNT=$(call count,10000) TEST_HOSTILE_TIMED=yes /usr/bin/python3 $$each || exit 1; \
	done

# A fuzz target over its corpus; and, in a build of its own, under libFuzzer.
FUZZ_TARGETS := $(patsubst tests/fuzz/fuzz_%.c,%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
FUZZ         ?= $(FUZZ_TARGETS)
FUZZ_SECONDS ?= 60
FUZZ_CC      ?= clang

$(BUILD)/replay/%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(BUILD)/obj/tests/fuzz/replay.o $(BUILD)/libtest.a $(SERVER_LIBS)
	@mkdir -p $(@D)
	$(call say,LD)$(CC) -o $@ $^ $(ALL_LDFLAGS) $(BROKER_LIBS) -lcheck -lsubunit -lm

$(BUILD)/fuzz/%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(BUILD)/libtest.a $(SERVER_LIBS)
	@mkdir -p $(@D)
	$(call say,LD)$(CC) -fsanitize=fuzzer -o $@ $^ $(ALL_LDFLAGS) $(BROKER_LIBS) -lcheck -lsubunit -lm

tests: $(FUZZ_TARGETS:%=$(BUILD)/replay/%)

.PHONY: fuzz fuzzers
fuzzers: $(FUZZ:%=$(BUILD)/fuzz/%)

fuzz:
	@etc/deps fuzz
	@$(MAKE) --no-print-directory fuzzers BUILD=build/fuzzing CC='$(FUZZ_CC)' SANITIZE=address,undefined \
	    CFLAGS='-O1 -g -fsanitize=fuzzer-no-link'
	@for target in $(FUZZ); do \
	    mkdir -p build/fuzzing/corpus/$$target build/fuzzing/found && echo "# $$target" && \
	    build/fuzzing/fuzz/$$target -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
	        -dict=tests/fuzz/words -artifact_prefix=build/fuzzing/found/$$target- build/fuzzing/corpus/$$target \
	        tests/fuzz/corpus/$$target 2>build/fuzzing/$$target.log || { tail -40 build/fuzzing/$$target.log; exit 1; }; \
	    grep -E 'number_of_executed_units|average_exec' build/fuzzing/$$target.log; \
	done

bench: test-deps
	@$(MAKE) --no-print-directory $(PROGRAMS) $(BENCHES)
	@for b in $(BENCHES); do echo "# $$b"; $$b || exit 1; done

bench-tls: test-deps
	@$(MAKE) --no-print-directory $(BUILD)/stoatmq $(BUILD)/stoatperf
	@$(rig) PYTHONPATH=tests/lib:tests/hostile tests/bench/tls_throughput.py

.PHONY: testssl
testssl:
	@etc/deps testssl
	@$(MAKE) --no-print-directory $(BUILD)/stoatmq
	@$(rig) tests/testssl/testssl.py

# COVERED instruments that folder alone. A failed assert is a branch that must not be taken.
COVERED ?=
ifneq ($(COVERED),)
$(BUILD)/obj/$(COVERED)/%.o: CFLAGS += --coverage
ALL_LDFLAGS += --coverage
endif

cover-tests: $(UNIT_TESTS) $(FUZZ_TARGETS:%=$(BUILD)/replay/%)

cover:
	@etc/deps cover
	@$(MAKE) --no-print-directory cover-tests BUILD=build/cover COVERED=amqp
	@find build/cover/obj/amqp -name '*.gcda' -delete
	@tests/run --build build/cover --quiet --patience 3 unit fuzz
	@gcovr --object-directory build/cover/obj/amqp --filter amqp/ --branches --fail-under-branch 95 \
	    --exclude-branches-by-pattern '.*\bassert\(.*'

format:
	@git ls-files -co --exclude-standard '*.c' '*.h' | xargs clang-format -i

# A configuration that is there already is the operator's.
install: all
	install -d -m 0755 $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 0755 $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin
	sed 's|/usr/local/bin/|$(PREFIX)/bin/|' etc/stoatmq.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/stoatmq.service
	chmod 0644 $(DESTDIR)$(PREFIX)/lib/systemd/system/stoatmq.service
	install -D -m 0644 etc/stoatmq.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/stoatmq.conf
	install -D -m 0644 etc/stoatmq.conf $(DESTDIR)$(PREFIX)/share/doc/stoatmq/stoatmq.conf
	test -e $(DESTDIR)/etc/stoatmq/stoatmq.conf || install -D -m 0644 etc/stoatmq.conf $(DESTDIR)/etc/stoatmq/stoatmq.conf

clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

endif
