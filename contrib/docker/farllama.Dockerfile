# The proxy, alone: `cargo xtask images` makes the context, whose folder `root` has the binary and the certificate authorities.
FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="farllama" \
      org.opencontainers.image.description="A local Ollama and an OpenAI server in front of a remote Ollama" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY root/ /
USER 65532:65532
# Others reach a container's own address, so farllama starts only with keys, or with FARLLAMA_LOCAL_PUBLIC=true.
ENV FARLLAMA_LOCAL_HOST=0.0.0.0
EXPOSE 11434
HEALTHCHECK --interval=30s --timeout=5s --start-period=5s CMD ["/usr/bin/farllama", "status"]
ENTRYPOINT ["/usr/bin/farllama"]
CMD ["serve"]
