-- JSON: values in and out, operators, paths, and what is not JSON.
create table j (id int, doc jsonb, raw json);
insert into j values (1, '{"b": 1, "a": [1, 2, {"c": null}], "a b": "ü\u00e9\n"}', '{"b": 1,   "a": [1]}'), (2, '[]', '"text"'), (3, null, 'null');
table j;
select doc -> 'a' -> 2 ->> 'c', doc #>> '{a,1}', doc ? 'b', doc @> '{"b": 1}', jsonb_typeof(doc), raw ->> 'b' from j order by id;
update j set doc = jsonb_set(doc, '{a,0}', '"changed"') || '{"new": true}' where id = 1 returning doc;
select jsonb_pretty(doc) from j where id = 1;
select * from jsonb_each('{"x": 1, "y": [2]}');
select * from jsonb_to_recordset('[{"a": 1, "b": "x"}, {"a": 2}]') as x (a int, b text);
select jsonb_path_query('{"list": [{"n": 1}, {"n": 5}, {"n": 9}]}', '$.list[*] ? (@.n > $least)', '{"least": 3}');
select json_build_object('k', 1, 'l', array[1, 2], 'm', null), row_to_json(row(1, 'x')), to_jsonb(timestamp '2026-01-02 03:04:05');
select json_agg(x), json_object_agg(id, v) from (values (1, 'one'), (2, 'two')) x (id, v);
select '{"a": }'::json;
select '{"a": 1'::jsonb;
select '{"a": "\u0000"}'::jsonb;
select ('{"n": 1e400}'::jsonb -> 'n')::float8;
select doc - 'a', doc #- '{a,0}' from j where id = 1;
select jsonb_path_exists('{}', 'lax $.x'), jsonb_path_query('{}', 'strict $.x');
