-- Aggregates, windows, grouping sets.
create table sales (region text, month int, amount numeric, paid bool);
insert into sales select (array['north', 'south', 'west'])[1 + g % 3], 1 + g % 4, g * 10.25, g % 2 = 0 from generate_series(1, 24) g;
select count(*), count(distinct region), sum(amount), avg(amount), min(amount), max(region), bool_and(paid), stddev(amount)::numeric(10, 4) from sales;
select region, sum(amount) from sales group by region having sum(amount) > 900 order by 2 desc;
select region, month, sum(amount) from sales group by rollup (region, month) order by 1 nulls last, 2 nulls last;
select grouping(region, month) as g, region, month, count(*) from sales group by grouping sets ((region), (month), ()) order by 1, 2, 3;
select region, month, amount, rank() over w, sum(amount) over (w rows between 1 preceding and current row), lag(amount, 1, 0) over w
	from sales window w as (partition by region order by amount) order by 1, 3;
select string_agg(region, ',' order by region, month), array_agg(distinct month), json_agg(month order by month) filter (where month > 2) from sales where amount < 80;
select percentile_cont(0.5) within group (order by amount), mode() within group (order by region) from sales;
select month, count(*) filter (where paid) as paid, count(*) filter (where not paid) as open from sales group by 1 order by 1;
select sum(amount) from sales where false;
select region, amount from sales group by region;
select sum(sum(amount)) from sales;
select distinct on (region) region, month, amount from sales order by region, amount desc;
\crosstabview
select region, month, sum(amount) as total from sales group by 1, 2 order by 1, 2 \crosstabview region month total
