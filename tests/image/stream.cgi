#!/bin/sh
# A download that takes its time: 200 blocks of 3,000 numbered lines, one block every 50 ms. The same bytes each time.
printf 'Content-Type: text/plain\r\n\r\n'
block=0
while [ $block -lt 200 ]; do
	seq $((block * 3000 + 1)) $((block * 3000 + 3000))
	block=$((block + 1))
	usleep 50000
done
