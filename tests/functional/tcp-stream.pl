# SPDX-License-Identifier: Apache-2.0
# A slow stream by TCP, for guests that have perl but no Python.
# usage: receive: prints what comes | send ADDRESS FILE: in pieces, with pauses
use strict;
use warnings;
use IO::Socket::INET;

my ($what, $address, $file) = @ARGV;
my $piece;
if ($what eq 'receive') {
    my $listener = IO::Socket::INET->new(LocalPort => 7000, Listen => 1, ReuseAddr => 1) or die $!;
    my $from = $listener->accept or die $!;
    my $n;
    while ($n = sysread $from, $piece, 65536) { print $piece }
    die $! unless defined $n;
} else {
    my $to;
    for (my $tries = 0; !$to; $tries++) {
        $to = IO::Socket::INET->new(PeerAddr => $address, PeerPort => 7000);
        die $! if !$to && $tries == 60;
        sleep 1 unless $to;
    }
    open my $in, '<', $file or die $!;
    while (my $n = sysread $in, $piece, 65536) {
        for (my $done = 0; $done < $n;) { $done += syswrite($to, $piece, $n - $done, $done) // die $! }
        select undef, undef, undef, 0.1;
    }
    close $to or die $!;
}
