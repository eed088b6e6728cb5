// node-postgres: the same as client.py, in another language.

'use strict'

const assert = require('node:assert')
const fs = require('node:fs')
const { pipeline } = require('node:stream/promises')
const { Readable } = require('node:stream')
const { Client, Pool } = require('pg')
const Cursor = require('pg-cursor')
const copy = require('pg-copy-streams')

const MODES = { session: 6432, transaction: 6433 }
const PAUSE = 5 // milliseconds between two rows

const options = (port, more = {}) => ({
  host: process.env.PGHOST,
  port,
  database: 'postgres',
  user: 'app',
  password: process.env.PGPASSWORD,
  ...more,
})

async function connect(port, more) {
  const client = new Client(options(port, more))
  // What a query fails with is told to the query; this is about the connection alone.
  client.on('error', () => {})
  await client.connect()
  return client
}

const tell = (what) => console.log(JSON.stringify(what))

async function plain(mode, port) {
  const client = await connect(port)
  const when = new Date('2026-02-28T12:00:00Z')
  const values = [1, 'ä €', '1.50', when, [1, 2], Buffer.from([0, 255]), null, { a: [1] }]
  const types = 'int text numeric timestamptz int[] bytea text jsonb'.split(' ')
  const sql = 'SELECT ' + types.map((type, at) => `$${at + 1}::${type} AS c${at}`).join(', ')
  const row = (await client.query(sql, values)).rows[0]
  assert.deepStrictEqual(Object.values(row), values)
  await assert.rejects(client.query('SELECT 1/0'), { code: '22012' })
  const large = await client.query("SELECT repeat('x', 3000000) AS x")
  assert.strictEqual(large.rows[0].x.length, 3000000)
  // Prepared statements with names.
  for (let round = 0; round < 2; round++) {
    for (let n = 0; n < 250; n++) {
      const query = { name: `plus-${n}`, text: `SELECT $1::int + ${n} AS x`, values: [round] }
      assert.strictEqual((await client.query(query)).rows[0].x, round + n)
    }
  }
  // COPY, both ways.
  const table = `copied_${mode}_node`
  await client.query(`DROP TABLE IF EXISTS ${table}; CREATE TABLE ${table} (a int, b text)`)
  const lines = Array.from({ length: 20000 }, (_, n) => `${n}\tline ${n}\n`)
  await pipeline(Readable.from(lines), client.query(copy.from(`COPY ${table} FROM STDIN`)))
  const chunks = []
  for await (const chunk of client.query(copy.to(`COPY ${table} TO STDOUT`))) chunks.push(chunk)
  assert.strictEqual(Buffer.concat(chunks).toString(), lines.join(''))
  // A cursor of the protocol, in a transaction.
  await client.query('BEGIN')
  const cursor = client.query(new Cursor('SELECT generate_series(1, 5000) AS n'))
  let total = 0
  for (let rows = await cursor.read(100); rows.length; rows = await cursor.read(100)) {
    total += rows.reduce((sum, row) => sum + row.n, 0)
  }
  await cursor.close()
  await client.query('COMMIT')
  assert.strictEqual(total, 12502500)
  // A cancel: the driver sends it by another connection.
  const sleeping = client.query('SELECT pg_sleep(30)')
  const canceled = assert.rejects(sleeping, { code: '57014' })
  await new Promise((resolve) => setTimeout(resolve, 500))
  await cancel(port, client)
  await canceled
  assert.strictEqual((await client.query('SELECT 7 AS x')).rows[0].x, 7)
  // A notification.
  const heard = new Promise((resolve) => client.on('notification', resolve))
  await client.query('LISTEN news_node')
  const other = await connect(port)
  await other.query("NOTIFY news_node, 'it works'")
  assert.strictEqual((await heard).payload, 'it works')
  // TLS, a pool, and a wrong password.
  for (const ssl of [false, { rejectUnauthorized: false }]) {
    const hidden = await connect(port, { ssl })
    assert.strictEqual((await hidden.query('SELECT 1 AS x')).rows[0].x, 1)
    await hidden.end()
  }
  const pool = new Pool(options(port, { max: 5 }))
  const sums = Array.from({ length: 100 }, (_, n) => pool.query('SELECT $1::int + 1 AS x', [n]))
  const found = (await Promise.all(sums)).map((result) => result.rows[0].x)
  assert.deepStrictEqual(found, Array.from({ length: 100 }, (_, n) => n + 1))
  await pool.end()
  await assert.rejects(connect(port, { password: 'wrong' }), { code: '28P01' })
  await other.end()
  await client.end()
}

function cancel(port, client) {
  const request = Buffer.alloc(16)
  const words = [16, 80877102, client.processID, client.secretKey]
  words.forEach((word, at) => request.writeInt32BE(word, at * 4))
  return new Promise((resolve, reject) => {
    const socket = require('node:net').connect(port, process.env.PGHOST)
    socket.on('connect', () => socket.end(request))
    socket.on('close', resolve)
    socket.on('error', reject)
  })
}

class Life {
  constructor(mode) {
    this.mode = mode
    this.book = { acknowledged: [], refused: [], unknown: [] }
  }

  async begin() {
    this.idle = await connect(MODES[this.mode])
    await this.idle.query("SET app.user_id = '7'; SET TimeZone = 'Asia/Tokyo'")
    this.session = await connect(MODES[this.mode])
  }

  async write(n) {
    try {
      await this.put(n)
      this.book.acknowledged.push(n)
    } catch (error) {
      if (error.code === '40001') {
        this.book.refused.push(n)
        await this.session.query('ROLLBACK')
      } else if (error.code === '08007') {
        this.book.unknown.push(n)
        this.session = await connect(MODES[this.mode])
      } else {
        throw error
      }
    }
  }

  async put(n) {
    const text = 'INSERT INTO seats VALUES ($1, $2, $3)'
    const insert = { text, values: ['node', this.mode, n] }
    if (n % 3 === 0) {
      await this.session.query(insert)
    } else {
      await this.session.query('BEGIN')
      await this.session.query(n % 3 === 1 ? insert : { ...insert, name: 'seat' })
      await this.session.query('COMMIT')
    }
  }

  async end() {
    const asked = "SELECT current_setting('app.user_id') || current_setting('TimeZone') AS x"
    assert.strictEqual((await this.idle.query(asked)).rows[0].x, '7Asia/Tokyo')
    return this.book
  }
}

async function main() {
  for (const [mode, port] of Object.entries(MODES)) await plain(mode, port)
  const lives = Object.keys(MODES).map((mode) => new Life(mode))
  for (const life of lives) await life.begin()
  tell({ plain: true })
  for (let n = 0; !fs.existsSync('over'); n++) {
    for (const life of lives) await life.write(n)
    await new Promise((resolve) => setTimeout(resolve, PAUSE))
  }
  const books = {}
  for (const life of lives) books[life.mode] = await life.end()
  tell(books)
  process.exit(0)
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
