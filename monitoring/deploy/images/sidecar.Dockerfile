# The sidecar's image: docker build -f monitoring/deploy/images/sidecar.Dockerfile monitoring
# Runs read-only and as nobody in particular; the model's reference.json is mounted or added in a layer above,
# and MODEL_EXPORTER_REFERENCE says where it is.
ARG BASE=python:3.11-slim
FROM ${BASE}

COPY deploy/images/sidecar-requirements.txt /tmp/requirements.txt
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
        --only-binary :all: --requirement /tmp/requirements.txt \
    && rm /tmp/requirements.txt \
    && find / -xdev -type d -path '*/site-packages/numpy/*' -name tests -prune -exec rm -r {} +

WORKDIR /app
COPY __init__.py reference.py monitoring/
COPY sidecar/*.py monitoring/sidecar/
RUN python -m compileall -q monitoring

ENV PYTHONUNBUFFERED=1 \
    OPENBLAS_NUM_THREADS=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MODEL_EXPORTER_HOST=* \
    MODEL_EXPORTER_PORT=8000 \
    MODEL_EXPORTER_METRICS_HOST=* \
    MODEL_EXPORTER_METRICS_PORT=9101
USER 10001:10001
EXPOSE 8000 9101
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', os.environ['MODEL_EXPORTER_METRICS_PORT'], timeout=4); c.request('GET', '/live'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "monitoring.sidecar"]
