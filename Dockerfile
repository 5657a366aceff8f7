# syntax=docker/dockerfile:1
FROM python:3.13-slim AS build
WORKDIR /src
# What is depended on, and what builds, by hash; made anew only when a lock changes.
COPY .docker ./.docker
RUN python -m venv /opt/xbyte \
    && /opt/xbyte/bin/pip install --no-cache-dir --require-hashes -r .docker/requirements.lock \
    && python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes -r .docker/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY xbyte_live ./xbyte_live
# The pages are built on their own, so that an image without them is never made.
RUN /opt/build/bin/python -m xbyte_live.frontend.bundle \
    && /opt/build/bin/pip wheel --no-cache-dir --no-build-isolation --no-deps -w /wheels . \
    && /opt/xbyte/bin/pip install --no-cache-dir --no-deps /wheels/*.whl

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /data --create-home xbyte
COPY --from=build /opt/xbyte /opt/xbyte
ENV PATH=/opt/xbyte/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XBYTE_DATA_DIR=/data \
    XBYTE_HOST=0.0.0.0
USER xbyte
VOLUME /data
EXPOSE 8402 1935
HEALTHCHECK --interval=15s --timeout=4s --start-period=20s CMD \
    ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('XBYTE_PORT', '8402')}/healthz\", timeout=3)"]
ENTRYPOINT ["xbyte-live"]
CMD ["serve"]
