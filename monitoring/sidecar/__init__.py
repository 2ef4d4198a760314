"""A proxy in front of the model's container: it forwards, batches, checks and counts requests.

__main__         `python -m monitoring.sidecar`: the sidecar, until SIGTERM or SIGINT
answers          an answer to a request
assembly         builds the sidecar from its parts, starts and stops them in order
batching         sends requests that differ only in their rows as one call
budget           the memory limit of the sidecar
counting         counts answered rows and predictions
endpoints        the paths of the traffic port
feedback         late labels
feedback_tokens  signed feedback tokens, which let callers carry the predictions
guard            rules that rows must keep to be forwarded when the guard rejects
http1            HTTP/1.1 messages
lots             counts that reach the metrics in lots
metrics          every metric of the sidecar: names, labels, meaning
model_check      whether the container serves the model of the reference
model_client     the model's container, over pooled keep-alive connections
operations       the metrics port: a Flask application on waitress
payloads         request and answer bodies
proxy            requests on their way to the model's container and back
rows             values of a request, parsed as the model's server parses them, and their bins
server           the listener of a port
settings         settings from the environment: read once, checked, frozen
wire             a connection as a bounded stream of bytes
"""
