"""Where records go besides the journal: sinks fed from the segments, each with a durable position.

The journal on disk is the buffer: a sink that is away costs disk and nothing else, and none of this is on
the path of a request. Delivery is at least once and in order within a chain; receivers tell repetitions by
`worker` and `seq`.

    shipper.py        reads on, sends, remembers how far
    redis_streams.py  XADD
    http_batches.py   signed JSON lines, and OTLP logs over HTTP
    syslog.py         RFC 5424 over TCP or TLS
"""

from cbk_gateway.audit.sinks.http_batches import HttpSink, OtlpSink
from cbk_gateway.audit.sinks.redis_streams import RedisStreamSink
from cbk_gateway.audit.sinks.shipper import Batch, Shipper, ShipperOptions, Sink, SinkFault
from cbk_gateway.audit.sinks.syslog import SyslogSink

__all__ = [
    "Batch",
    "HttpSink",
    "OtlpSink",
    "RedisStreamSink",
    "Shipper",
    "ShipperOptions",
    "Sink",
    "SinkFault",
    "SyslogSink",
]
