"""A model of TCP through a tunnel: flows, the sender's processor, the tunnel, and a path with a bottleneck queue.

It simulates discrete events on an explicit clock, without sleeping and without sockets. From sender to receiver:

    Flow        a TCP sender that always has data, and its receiver. Cubic, LinuxCubic or Bbr sets its window and pace.
                It detects loss as RACK does, with a reordering window of a quarter of the round trip once it has seen
                reordering, and undoes a reduction when every segment that caused it arrives after all
    Tunnel      the device, a processor that takes time for each record and each datagram, and the program's Span,
                ParityMaker, Restorer, ReplayWindow and ReceiveStats. PlainTunnel has the device and the processor
                only, and sends each segment in one datagram
    Path        a rate, a tail-drop queue counted in packets, random loss, and a one-way delay. Tunnels may share one

Acknowledgements and REPORTs return after the one-way delay and are never lost. The model does not distinguish
retransmissions from new data: a lost segment is not counted, and another one takes its place. `Flow.received` is
therefore the application's throughput, if the receive buffer is large and the wait for holes is ignored.

Sizes are bytes, times seconds, rates bytes a second, unless stated otherwise.
"""
