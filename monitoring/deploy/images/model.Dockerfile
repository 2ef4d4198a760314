# The model's image: what serving needs of the stock image (`mlflow models build-docker`), on the same
# base, started without nginx and without anything that must be written, with model_server.py before MLflow's
# server. `make image` builds it.
ARG STOCK
ARG BASE
FROM ${STOCK} AS stock
ARG SITE
COPY unused.txt /tmp/unused.txt
COPY model_server.py /opt/ml/model_server.py
RUN cd "${SITE}" \
    && sed 's/ *#.*//' /tmp/unused.txt | while read -r pattern; do [ -z "$pattern" ] || rm -rf $pattern; done \
    && find . -type d \( -name tests -o -name test \) -prune -exec rm -r {} + \
    && chmod -R a+rX /opt/ml/model /opt/ml/model_server.py

FROM ${BASE}
ARG SITE
COPY --from=stock ${SITE} ${SITE}
COPY --from=stock /opt/ml/model /opt/ml/model
COPY --from=stock /opt/ml/model_server.py /opt/ml/model_server.py
# One worker and one thread each for OpenMP and BLAS: a container that needs more gets a replica.
ENV MODEL_FOLDER=/opt/ml/model \
    WEB_CONCURRENCY=1 \
    OMP_NUM_THREADS=1 \
    OPENBLAS_NUM_THREADS=1 \
    HOME=/tmp \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_DISABLE_ENV_CREATION=true \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GIT_PYTHON_REFRESH=quiet
WORKDIR /opt/ml
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-S", "-c", "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 8080, timeout=4); c.request('GET', '/ping'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "uvicorn", "--host", "0.0.0.0", "--port", "8080", "--no-access-log", \
            "--timeout-keep-alive", "75", "--timeout-graceful-shutdown", "20", "--factory", "model_server:create"]
