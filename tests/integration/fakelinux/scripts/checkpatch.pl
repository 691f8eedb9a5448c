#!/usr/bin/env perl
# SPDX-License-Identifier: GPL-2.0-only
# checkpatch in small: the options, output and exit status that the harness relies on.
use strict;
use warnings;

my %option = map { /^--([a-z-]+)(?:=(.*))?$/ ? ($1 => $2 // 1) : () } @ARGV;
my %ignored = map { $_ => 1 } split(/,/, $option{'ignore'} // '');
my ($file) = grep { !/^--/ } @ARGV;
open(my $mail, '<', $file) or die "$file: $!\n";
my ($bad, $signed) = (0, 0);
my $body = 1;

sub report {
	my ($line, $level, $type, $text) = @_;
	return if $ignored{$type};
	print "$file:$line: $level:$type: $text\n";
	$bad = 1;
}

while (my $line = <$mail>) {
	chomp $line;
	$body = 0 if $line eq '---';
	$signed = 1 if $line =~ /^Signed-off-by:/;
	report($., 'WARNING', 'COMMIT_LOG_LONG_LINE', 'Prefer a maximum 75 chars per line')
		if $body && $. > 5 && length($line) > 75;
	report($., 'ERROR', 'TRAILING_WHITESPACE', 'trailing whitespace')
		if $line =~ /^\+.*\s$/;
}
report($., 'ERROR', 'MISSING_SIGN_OFF', 'Missing Signed-off-by: line(s)') if !$signed;
exit($bad);
