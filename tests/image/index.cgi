#!/bin/sh
# Which instance answers, and as whom it sees the caller: a server sees the caller's instance address.
caller=${REMOTE_ADDR#\[::ffff:}
printf 'Content-Type: text/plain\r\n\r\n'
echo "$(hostname) answers ${caller%\]}"
