-- Values of many types, at their ends and in both directions.
select 32767::int2, (-2147483648)::int4, 9223372036854775807::int8, '-1.5e-300'::float8, 'NaN'::float4, '-Infinity'::float8;
select 12345678901234567890.123456789::numeric, 'NaN'::numeric, 0.1::float4::float8, '123.45'::money;
select true, false, null::bool, 'it''s'::text, e'tab\there\\', 'x'::char(5) || '|', 'näme – 漢字 😀'::varchar(20);
select '\xdeadbeef00'::bytea, ''::bytea, b'1011'::bit(4), b'1'::varbit, '(1,2)'::point, '<(0,0),3>'::circle;
select '10.1.2.3/8'::inet, 'fe80::1'::inet, '08:00:2b:01:02:03'::macaddr, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid;
select '[1,5)'::int4range, '{[1,3),[7,9)}'::int4multirange, 'empty'::daterange, '<a b="c">d</a>'::xml;
set bytea_output = escape;
select '\xdeadbeef00'::bytea;
set extra_float_digits = 0;
select 0.1::float8 + 0.2::float8, pi();
create type pair as (a int, b text);
create type mood as enum ('calm', 'cross');
select row(1, 'x,"y"')::pair, ('calm'::mood, null), (row(2, null)::pair).*;
select 'merry'::mood;
select pg_typeof(1), pg_typeof('a'), pg_typeof(array['calm'::mood]), to_tsvector('english', 'the rivers run');
create table t (i int2, n numeric(6, 2), c char(3), v varchar(4), b bytea, m mood, p pair);
insert into t values (1, 2.345, 'a', 'abcd', '\x00', 'calm', row(1, 'z')), (null, null, null, null, null, null, null);
insert into t values (40000), (1);
insert into t (v) values ('abcde');
table t;
\x on
table t;
\x off
\pset format csv
table t;
\pset format aligned
\d t
