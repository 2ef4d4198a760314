# MLServer as the stock image is made: the same base, the model's own packages in the runtime's versions. For
# `python -m benchmarks.serving --mlserver`, which mounts the model; never shipped.
FROM python:3.11-slim
COPY requirements-mlserver.txt /
RUN pip install --no-cache-dir -r /requirements-mlserver.txt
ENV OMP_NUM_THREADS=1
EXPOSE 8080
ENTRYPOINT ["mlserver", "start", "/model"]
