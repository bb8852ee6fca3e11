-- Arrays: bounds, dimensions, slices, NULLs, operators.
select array[1, 2, 3], '{}'::int[], array[[1, 2], [3, 4]], '[0:2]={7,8,9}'::int[], array['a b', 'c,d', 'e"f', null, 'NULL', '']::text[];
select (array[1, 2, 3])[2], (array[1, 2, 3])[2:], (array[[1, 2], [3, 4]])[2][1], (array[1])[5];
select array[1, 2] || 3, 0 || array[1], array[1] || array[[2], [3]], array[1, 2] @> array[2], array[1, 2] && array[3];
select unnest(array[1, 2]), unnest(array['x', 'y', 'z']);
select * from unnest(array[1, 2], array['x']) with ordinality as u (a, b, n);
select array_length(array[[1, 2, 3]], 2), array_dims('[2:3]={1,2}'::int[]), cardinality(array[[1], [2]]), array_position(array['a', 'b'], 'b');
select array_remove(array[1, null, 2], null), array_replace(array[1, 2], 2, 9), array_to_string(array[1, null, 3], ',', '*'), string_to_array('a,,b', ',', '');
create table t (i int[], m text[][]);
insert into t values ('{1,2,3}', '{{a,b},{c,d}}'), (null, '{}');
update t set i[5] = 9, m[1][2] = 'changed' where i is not null returning *;
select * from t where 9 = any (i);
select * from t where 0 < all (i);
select '{1,{2}}'::int[];
select '{1,x}'::int[];
select array[1, 'x'];
select array[[1, 2], [3]];
select array_agg(x order by x desc), array_agg(array[x]) from generate_series(1, 3) x;
select array(select g from generate_series(1, 5) g where g % 2 = 1), array_fill(7, array[2, 2]);
