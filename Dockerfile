# docker build -t nmt . && docker run -p 127.0.0.1:5000:5000 -v ./runs/tatoeba:/model:ro -e NMT_API_KEY=… nmt
FROM python:3.13-slim
RUN pip install --no-cache-dir torch --index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml README.md LICENSE /src/
COPY nmt /src/nmt
RUN pip install --no-cache-dir "/src[serve]"
USER nobody
EXPOSE 5000
CMD ["nmt", "serve", "--model", "/model", "--host", "0.0.0.0"]
