"""Control of a running tunnel through a unix socket: server, client, and what can be asked."""
