"""The proxy before the model's container: it forwards, counts, batches and guards.

__main__         `python -m monitoring.sidecar`: the sidecar, until SIGTERM or SIGINT
answers          an answer to a request
assembly         the parts of the sidecar put together, so that they start and stop in one order
batching         gathers requests that are alike in everything but their rows
budget           what the sidecar may hold in memory
counting         counts what was answered
endpoints        what is served where on the traffic port
feedback         late labels
feedback_tokens  signed feedback tokens: what was predicted, carried by the caller instead of a database
guard            rules that rows must keep to be forwarded when the guard rejects
http1            HTTP/1.1 messages
lots             counts that reach the metrics in lots
metrics          every metric of the sidecar: names, labels, meaning
model_check      whether the container is there
model_client     the model's container, over pooled keep-alive connections
operations       the metrics port: a Flask application on waitress, apart from what callers reach
payloads         request and answer bodies
proxy            requests on their way to the model's container and back
rows             values as a request brings them, read as the model's server reads them, and their fates
server           the listener of a port
settings         settings
wire             one connection as bytes that come when they are asked for
"""
