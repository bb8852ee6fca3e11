// What TestLibraries has every library do: a command, a shell with a terminal, files.
const crypto = require('crypto')
const { Client } = require('ssh2')

const [host, port, fingerprint, folder] = process.argv.slice(2)
const c = new Client()
const must = (err) => { if (err) { console.error(err); process.exit(1) } }

c.on('error', must)
c.on('ready', () => c.exec('cat; echo err >&2; exit 5', (err, s) => {
  must(err)
  let out = '', stderr = ''
  s.on('data', (d) => { out += d })
  s.stderr.on('data', (d) => { stderr += d })
  s.on('close', (code) => {
    console.log(`exec: ${out.trim()} ${stderr.trim()} ${code}`)
    shell()
  })
  s.end('in\n')
}))

function shell () {
  c.shell({ term: 'vt100', rows: 31, cols: 91 }, (err, s) => {
    must(err)
    let out = ''
    s.on('data', (d) => { out += d })
    s.on('close', () => {
      console.log('shell: ' + /31 91/.test(out))
      files()
    })
    s.end('stty size; exit\n')
  })
}

function files () {
  c.sftp((err, f) => {
    must(err)
    const content = crypto.randomBytes(300000)
    f.writeFile(folder + '/a', content, (err) => {
      must(err)
      f.rename(folder + '/a', folder + '/b', (err) => {
        must(err)
        f.readFile(folder + '/b', (err, got) => {
          must(err)
          f.readdir(folder, (err, list) => {
            must(err)
            console.log(`sftp: ${got.equals(content)} ${list.map((x) => x.filename)}`)
            f.readFile(folder + '/none', (err) => {
              console.log('missing: ' + err.message)
              c.end()
            })
          })
        })
      })
    })
  })
}

c.connect({
  host, port, username: 'web', password: process.env.TOKEN,
  hostVerifier: (key) => 'SHA256:' + crypto.createHash('sha256').update(key).digest('base64').replace(/=+$/, '') === fingerprint,
})
