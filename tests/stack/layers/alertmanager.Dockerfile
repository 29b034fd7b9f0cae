ARG ROOT
FROM ${ROOT}
RUN install -d -o nobody -g nogroup /alertmanager && install -d /etc/alertmanager \
 && { [ -e /usr/bin/alertmanager ] || ln -s prometheus-alertmanager /usr/bin/alertmanager; }
USER nobody
VOLUME /alertmanager
WORKDIR /alertmanager
EXPOSE 9093
ENTRYPOINT ["/usr/bin/alertmanager"]
CMD ["--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/alertmanager"]
