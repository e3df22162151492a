// SPDX-License-Identifier: Apache-2.0
// Goal: the index is never believed when it could be wrong. Method: a directory of its own per test, changed behind the
// back of the code as another program, a killed process or a power cut would. Needs no root.
import assert from 'node:assert/strict'
import {
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { deadlineIn } from '#base'
import { type Journal, openJournal } from './journal.ts'
import { openReservations, type ReservationsOptions } from './reservations.ts'

const pod = (name: string) => ({ containerId: name, ifName: 'eth0' })

function setUp(t: TestContext) {
  const home = mkdtempSync(join(tmpdir(), 'reservations-'))
  const journal = openJournal(join(home, 'journal'))
  t.after(() => {
    journal[Symbol.dispose]()
    rmSync(home, { recursive: true })
  })
  const directory = join(home, 'networks', 'net')
  const options = (access: 'create' | 'write' | 'read' = 'create', with_: Journal | undefined = journal) =>
    ({ index: with_, deadline: deadlineIn(5000), access }) satisfies ReservationsOptions
  const open = async (access?: 'create' | 'write' | 'read') => (await openReservations(directory, options(access)))!
  const reserve = async (address: string, owner = pod(address)) => {
    using reservations = await open()
    return reservations.tryReserve(address, owner)
  }
  const owned = async (owner: { containerId: string; ifName: string }) => {
    using reservations = await open()
    return (await reservations.ownedBy(owner)).sort()
  }
  /** True if the next visit will not read the files. */
  const isIndexed = () => {
    const { dev, ino, mtimeNs, ctimeNs } = statSync(directory, { bigint: true })
    const row = journal.sql('SELECT stamp FROM reservation_directory WHERE path = ?').get(directory)
    return row?.['stamp'] === [dev, ino, mtimeNs, ctimeNs].join(':')
  }
  return { home, journal, directory, options, open, reserve, owned, isIndexed }
}

test('tryReserve() writes what the reference writes', async t => {
  const { directory, reserve } = setUp(t)
  assert.equal(await reserve('10.0.0.2', pod('c1')), true)
  assert.equal(await reserve('fd00::2', pod('c1')), true)
  assert.deepEqual(readdirSync(directory).sort(), ['10.0.0.2', 'fd00::2', 'lock'])
  assert.equal(readFileSync(join(directory, '10.0.0.2'), 'utf8'), 'c1\r\neth0')
  const mode = (name: string) => (statSync(join(directory, name)).mode & 0o777).toString(8)
  assert.deepEqual(['.', '10.0.0.2', 'lock'].map(mode), ['755', '600', '750'])
})

test('openReservations() gives mode 755 whatever the umask is', async t => {
  const { directory, reserve } = setUp(t)
  const before = process.umask(0o077)
  t.after(() => process.umask(before))
  await reserve('10.0.0.2')
  for (const path of [directory, join(directory, '..')]) assert.equal(statSync(path).mode & 0o777, 0o755, path)
})

test('tryReserve() refuses a taken name, whatever it is, and follows no link', async t => {
  const { home, directory, reserve } = setUp(t)
  await reserve('10.0.0.2')
  assert.equal(await reserve('10.0.0.2', pod('c2')), false)
  symlinkSync(join(home, 'victim'), join(directory, '10.0.0.3'))
  mkdirSync(join(directory, '10.0.0.4'))
  assert.equal(await reserve('10.0.0.3'), false)
  assert.equal(await reserve('10.0.0.4'), false)
  assert.equal(existsSync(join(home, 'victim')), false)
})

test('ownedBy() asks the index as long as nobody changes the directory', async t => {
  const { reserve, owned, isIndexed, directory } = setUp(t)
  await reserve('10.0.0.2', pod('c1'))
  assert.equal(isIndexed(), true)
  assert.deepEqual(await owned(pod('c1')), ['10.0.0.2'])
  writeFileSync(join(directory, '10.0.0.9'), 'c1\r\neth0')
  assert.equal(isIndexed(), false)
  assert.deepEqual(await owned(pod('c1')), ['10.0.0.2', '10.0.0.9'])
  assert.equal(isIndexed(), true)
})

test('ownedBy() sees a change in the same tick of the clock as our own', async t => {
  const { reserve, owned, directory } = setUp(t)
  for (let round = 0; round < 200; round++) {
    await reserve('10.0.0.2', pod('c1'))
    unlinkSync(join(directory, '10.0.0.2'))
    writeFileSync(join(directory, '10.0.0.2'), 'c2\r\neth0')
    assert.deepEqual([await owned(pod('c1')), await owned(pod('c2'))], [[], ['10.0.0.2']])
    unlinkSync(join(directory, '10.0.0.2'))
  }
})

test('ownedBy() believes the file more than the index', async t => {
  const { reserve, owned, directory, isIndexed } = setUp(t)
  await reserve('10.0.0.2', pod('c1'))
  writeFileSync(join(directory, '10.0.0.2'), 'c2\r\neth0') // in place: the directory does not change
  assert.equal(isIndexed(), true)
  assert.deepEqual(await owned(pod('c1')), [])
  assert.deepEqual(await owned(pod('c2')), ['10.0.0.2'])
})

test('ownedBy() finds a file that a power cut has emptied', async t => {
  const { reserve, owned, directory } = setUp(t)
  await reserve('10.0.0.2', pod('c1'))
  truncateSync(join(directory, '10.0.0.2'))
  assert.deepEqual(await owned(pod('c1')), ['10.0.0.2'])
})

test('ownedBy() finds files that name the container alone', async t => {
  const { owned, directory } = setUp(t)
  mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, '10.0.0.2'), 'c1\n')
  assert.deepEqual(await owned({ containerId: 'c1', ifName: '' }), ['10.0.0.2'])
})

test('ownedBy() works without journal, and with one that fails', async t => {
  const { directory, options, journal, reserve } = setUp(t)
  await reserve('10.0.0.2', pod('c1'))
  const failing: Journal = {
    ...journal,
    sql: () => {
      throw new Error('disk image is malformed')
    },
  }
  for (const each of [undefined, failing]) {
    using reservations = (await openReservations(directory, { ...options('write'), index: each }))!
    assert.deepEqual(await reservations.ownedBy(pod('c1')), ['10.0.0.2'])
    assert.equal(reservations.isTaken('10.0.0.2'), true)
    reservations.release('10.0.0.2')
    assert.equal(reservations.tryReserve('10.0.0.2', pod('c1')), true)
  }
})

test('openReservations() clears what a process killed between two steps left', async t => {
  const { directory, reserve, owned } = setUp(t)
  await reserve('10.0.0.2', pod('c1'))
  // Killed after the file got its name and before the other name went.
  writeFileSync(join(directory, '.mooring-new'), 'c2\r\neth0')
  linkSync(join(directory, '.mooring-new'), join(directory, '10.0.0.3'))
  assert.deepEqual(await owned(pod('c2')), ['10.0.0.3'])
  assert.deepEqual(readdirSync(directory).sort(), ['10.0.0.2', '10.0.0.3', 'lock'])
  // The same, and the next call is one that writes.
  linkSync(join(directory, '10.0.0.3'), join(directory, '.mooring-new'))
  assert.equal(await reserve('10.0.0.4'), true)
  assert.equal(readFileSync(join(directory, '10.0.0.3'), 'utf8'), 'c2\r\neth0')
})

test('openReservations() finds a directory that was replaced', async t => {
  const { directory, reserve, owned, open, options } = setUp(t)
  await reserve('10.0.0.2', pod('c1'))
  rmSync(directory, { recursive: true })
  assert.equal(await openReservations(directory, options('write')), undefined)
  assert.equal(existsSync(directory), false)
  await reserve('10.0.0.3', pod('c2'))
  assert.deepEqual(await owned(pod('c1')), [])
  using reservations = await open()
  assert.equal(reservations.isTaken('10.0.0.2'), false)
})

test('openReservations() for reading changes nothing', async t => {
  const { directory, open, options } = setUp(t)
  assert.equal(await openReservations(directory, options('read')), undefined)
  mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, '10.0.0.2'), 'c1\r\neth0')
  const before = statSync(directory, { bigint: true })
  {
    using reservations = await open('read')
    assert.deepEqual(await reservations.ownedBy(pod('c1')), ['10.0.0.2'])
  }
  assert.deepEqual(readdirSync(directory), ['10.0.0.2'])
  assert.equal(statSync(directory, { bigint: true }).mtimeNs, before.mtimeNs)
})

test('openReservations() takes turns in the order of the calls', async t => {
  const { open, reserve } = setUp(t)
  await reserve('10.0.0.2') // who finds no directory makes it and queues again
  const order: number[] = []
  await Promise.all(
    Array.from({ length: 20 }, async (_, index) => {
      using _reservations = await open()
      await new Promise(resolve => setTimeout(resolve, 1))
      order.push(index)
    }),
  )
  assert.deepEqual(
    order,
    Array.from({ length: 20 }, (_, index) => index),
  )
})

test('openReservations() gives up at the deadline and by the signal, and leaves the lock usable', async t => {
  const { directory, open, options, reserve } = setUp(t)
  const held = await open()
  const late = openReservations(directory, { ...options(), deadline: deadlineIn(20) })
  const unwanted = openReservations(directory, { ...options(), signal: AbortSignal.abort() })
  const refused = Promise.all([
    assert.rejects(late, { name: 'TimeoutError' }),
    assert.rejects(unwanted, { name: 'AbortError' }),
  ])
  await new Promise(resolve => setTimeout(resolve, 40))
  held[Symbol.dispose]()
  await refused
  assert.equal(await reserve('10.0.0.2'), true)
})

test('takeBack() undoes this visit and nothing else', async t => {
  const { open, reserve, directory, owned, isIndexed } = setUp(t)
  await reserve('10.0.0.2', pod('c1'))
  {
    using reservations = await open()
    reservations.tryReserve('10.0.0.3', pod('c1'))
    reservations.tryReserve('10.0.0.4', pod('c1'))
    reservations.takeBack()
  }
  assert.deepEqual(readdirSync(directory).sort(), ['10.0.0.2', 'lock'])
  assert.equal(isIndexed(), true)
  assert.deepEqual(await owned(pod('c1')), ['10.0.0.2'])
})

test('isTaken() agrees with the files beyond the number of single questions', async t => {
  const { directory, open } = setUp(t)
  mkdirSync(directory, { recursive: true })
  const addresses = Array.from({ length: 600 }, (_, index) => `10.0.${index >> 8}.${index & 255}`)
  for (const [index, address] of addresses.entries())
    if (index % 3 !== 0) writeFileSync(join(directory, address), `c${index}\r\neth0`)
  const seen = async () => {
    using reservations = await open()
    return addresses.filter(address => !reservations.isTaken(address))
  }
  const free = addresses.filter((_, index) => index % 3 === 0)
  assert.deepEqual(await seen(), free) // read from the files
  assert.deepEqual(await seen(), free) // from the index
})

test('lastReserved() is noted at once and not through a link', async t => {
  const { home, directory, open } = setUp(t)
  using reservations = await open()
  assert.equal(reservations.lastReserved(0), undefined)
  writeFileSync(join(home, 'victim'), 'untouched')
  symlinkSync(join(home, 'victim'), join(directory, 'last_reserved_ip.0'))
  assert.equal(reservations.lastReserved(0), undefined)
  reservations.noteLastReserved(0, '10.0.0.2')
  assert.equal(readFileSync(join(directory, 'last_reserved_ip.0'), 'utf8'), '10.0.0.2')
  assert.equal(readFileSync(join(home, 'victim'), 'utf8'), 'untouched')
  assert.equal(reservations.lastReserved(0), '10.0.0.2')
})
