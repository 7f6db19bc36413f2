-- A write begins: what it may change is old from now on, and its mark holds back what is fetched meanwhile.
-- KEYS: epochs, marks. ARGV: kind (o or s), id, lease ms, types.
begin(ARGV[1], ARGV[2], ARGV[3], ARGV[4])
return now_ms
