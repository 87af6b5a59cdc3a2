#!/bin/sh
# Stands in for preroot in an initramfs: writes down how it was called, and ends as a test wants.
echo "$*" >> /calls
if [ -e /code ]; then
    read -r code < /code
fi
exit "${code:-0}"
