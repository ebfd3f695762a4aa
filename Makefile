# Names only: what each target does stands in scripts/.

.DEFAULT_GOAL := help
.PHONY: help demo test test-long check format bench profile load install uninstall clean

help:       ## this list
	@sed -n 's/^\([a-z-]*\): .*## /\1\t/p' Makefile | expand -t 12

demo:       ## two namespaces, the two commands of the README, a ping and a file through the tunnel
	@scripts/demo

test:       ## lint, types and all tests but the long ones
	@scripts/environment test
	@scripts/lint
	@scripts/test -m "not long"

test-long:  ## the tests that take minutes
	@scripts/environment test long
	@scripts/test -m long

check:      ## lint and types alone
	@scripts/lint

format:     ## format the code and repair what the linter can
	@scripts/format

bench:      ## compare vpntun with other tunnels, as root, in three and a half hours; scripts/bench --quick: five minutes
	@scripts/bench

profile:    ## show where vpntun's time goes under one TCP flow, at both ends, as root
	@scripts/profile

load:       ## show what a thousand peers cost a server, in a minute
	@scripts/load

install:    ## install the program and what starts it at boot: PREFIX=/usr/local, and DESTDIR for a tree of its own
	@scripts/install

uninstall:  ## take away what install has put there, but no configuration and no keys
	@scripts/uninstall

clean:      ## remove the environment and everything that was generated
	@scripts/clean
