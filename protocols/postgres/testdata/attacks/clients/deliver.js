// Delivers one DELETE in seven ways by node's pg, and prints for each what came of it: name, SQLSTATE, rows that are left.
const { Client } = require('pg')
const text = 'delete from s.victim'
const ways = {
  query: c => c.query(text),
  unnamed: c => c.query(text + ' where a > $1', [0]),
  named: c => c.query({ name: 'd', text: text + ' where a > $1', values: [0] }),
  prepare: async c => { await c.query('prepare d as ' + text); await c.query('execute d') },
  cursor: async c => { await c.query('begin'); await c.query('declare d cursor for select s.wipe()'); await c.query('fetch all d'); await c.query('commit') },
  batch: c => c.query('select 1; ' + text + '; select 2'),
  do: c => c.query('do $$ begin ' + text + '; end $$')
}
;(async () => {
  for (const [name, deliver] of Object.entries(ways)) {
    const c = new Client({ connectionString: process.argv[2] })
    await c.connect()
    let code = 'ok'
    try { await deliver(c) } catch (e) { code = e.code + ' ' + (e.detail || '') }
    await c.query('rollback')
    const left = (await c.query('select count(*)::int as n from s.victim')).rows[0].n
    console.log(`${name}|${code}|${left}`)
    if (left === 0) await c.query('insert into s.victim select generate_series(1, 5)')
    await c.end()
  }
})().catch(e => { console.error(e); process.exit(1) })
