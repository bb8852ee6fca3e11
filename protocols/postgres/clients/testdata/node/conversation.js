// The conversation, by node's pg. COPY needs pg-copy-streams, and is left out without it.
'use strict'
const { Client } = require('pg')
const { pipeline } = require('stream/promises')
const { Readable } = require('stream')

let copy = null
try { copy = require('pg-copy-streams') } catch { /* Debian does not have it */ }

const name = process.argv[2]
const say = (what, text) => console.log(what + ': ' + text)
const fault = (e) => [e.code, e.detail, e.hint].join('; ')

// refused runs what must fail, and returns its error.
async function refused (run) {
  try { await run() } catch (e) { return e }
  throw new Error('it was not refused')
}

async function main () {
  const c = new Client() // everything is in the environment
  await c.connect()
  let r = await c.query('select id, name, email from customers order by id')
  say('masked', `${r.rows[0].id} ${r.rows[0].name} ${r.rows[0].email}`)
  r = await c.query('select id, name, note from customers where id = $1 and name = $2', [2, 'Bob'])
  say('parameters', `${r.rows[0].id} ${r.rows[0].name} ${r.rows[0].note}`)
  const names = []
  for (let i = 0; i < 8; i++) {
    r = await c.query({ name: 'by id', text: 'select name from customers where id = $1', values: [i % 2 + 1] })
    names.push(r.rows[0].name)
  }
  say('prepared', names.join(' '))
  r = await c.query('select price, paid, day::text, list, doc from kinds')
  const k = r.rows[0]
  say('kinds', `${k.price} ${k.paid} ${k.day} ${k.list} ${k.doc.a[0]}`)
  say('refused', fault(await refused(() => c.query('drop table customers'))))
  r = await c.query('select 1 as one')
  say('usable', r.rows[0].one)
  say('unbounded', fault(await refused(() => c.query('delete from customers'))))

  await c.query('begin')
  await c.query('insert into written values ($1, 99)', [name])
  const first = await refused(() => c.query('drop table written'))
  const second = await refused(() => c.query('select 1'))
  await c.query('rollback')
  r = await c.query('select count(*) as n from written where client = $1', [name])
  say('transaction', `${first.code} ${second.code} ${r.rows[0].n}`)
  for (let i = 0; i < 3; i++) await c.query('insert into written values ($1, $2)', [name, i])
  await c.query('delete from written where client = $1 and n = $2', [name, 0])
  r = await c.query('select count(*) as n from written where client = $1', [name])
  say('written', r.rows[0].n)

  if (copy) {
    let out = ''
    for await (const piece of c.query(copy.to('copy (select id, name from customers order by id) to stdout'))) out += piece
    say('copy out', out.trim().replace(/\t/g, ' ').replace(/\n/g, ', '))
    const to = c.query(copy.from('copy written (client, n) from stdin'))
    await pipeline(Readable.from([10, 11, 12].map((n) => `${name}\t${n}\n`)), to)
    say('copy in', to.rowCount)
    say('copy refused', fault(await refused(async () => {
      for await (const piece of c.query(copy.to('copy (delete from written returning n) to stdout'))) void piece
    })))
  }

  const sleep = refused(() => c.query('select pg_sleep(30)'))
  setTimeout(() => cancel(c), 500)
  say('cancelled', (await sleep).code)
  r = await c.query('select 1 as one')
  say('end', r.rows[0].one)
  await c.end()
}

// cancel sends the cancel request as the driver itself does: over a connection of its own, with the key it was given.
function cancel (c) {
  const other = new Client()
  const con = other.connection
  con.connect(other.port, other.host)
  con.on('connect', () => con.cancel(c.processID, c.secretKey))
  con.on('error', () => {})
}

main().catch((e) => { console.error(e); process.exit(1) })
