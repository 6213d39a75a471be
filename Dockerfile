# The image that serves: the wheel, its locked dependencies and the model repository, nothing of training.
#
# The tag stands in one place. To pin the very bytes, put the digest behind it (`docker buildx imagetools inspect
# python:3.11-slim` prints it): FROM python:3.11-slim@sha256:… AS base
FROM python:3.11-slim AS base

# The official image has no bytecode of the standard library, and a read-only root keeps none: each start would take a
# third longer.
RUN python -m compileall -q -x '/(test|tests|idlelib|lib2to3|dist-packages|site-packages)/' \
    "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"


FROM base AS builder

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

# /opt/venv is what ships, without pip; /opt/build is left behind with this stage.
RUN python -m venv --without-pip /opt/venv && python -m venv /opt/build

COPY deploy/locks/build.txt deploy/locks/serve.txt /locks/
RUN /opt/build/bin/pip install --require-hashes --only-binary :all: -r /locks/build.txt \
 && /opt/build/bin/pip --python /opt/venv/bin/python install --no-compile \
    --require-hashes --only-binary :all: -r /locks/serve.txt

# The wheel goes in whole, as on any other machine: without its libraries, what it holds of export/ is inert text.
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY server server
COPY export export
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/build/bin/pip --python /opt/venv/bin/python install --no-compile --no-deps --no-index /wheels/*.whl

# A read-only root cannot keep bytecode, and file times need not survive the copy: compile here, and let nothing check.
RUN /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib

# Whatever the umask of the one who checked them out, the server must be able to read them.
COPY models /models
RUN chmod -R a+rX,go-w /models


FROM base

LABEL org.opencontainers.image.title="Committee" \
      org.opencontainers.image.description="Ensemble inference server: several models behind one endpoint" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"

# ONNX Runtime reports its use to its maker unless told not to, before it is imported.
# TMPDIR: what the supervisor and the metrics write is small and short-lived, and /dev/shm is writable under a
# read-only root everywhere, with no mount asked for.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TMPDIR=/dev/shm \
    ORT_DISABLE_TELEMETRY=1 \
    COMMITTEE_HOST=0.0.0.0 \
    COMMITTEE_PORT=8000 \
    COMMITTEE_MODELS=/models

COPY --from=builder /opt/venv /opt/venv
COPY --from=builder /models /models

# A number, so that Kubernetes can see for itself that it is not root. It owns nothing.
USER 10001:10001
EXPOSE 8000 8001
STOPSIGNAL SIGTERM

HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-ISc", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['COMMITTEE_PORT']), timeout=2); c.request('GET', '/v2/health/ready'); sys.exit(c.getresponse().status != 200)"]

ENTRYPOINT ["committee-server"]
