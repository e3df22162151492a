// SPDX-License-Identifier: Apache-2.0

// Goal: `host-local` as the reference has it on the disk, and the better thing where the conformance list asks for it:
// items HL-15 to HL-20 and HL-28 to HL-33. Method: the installed executable; upstream's own on the same directory where
// lab/peers built it. Needs root.

import assert from 'node:assert/strict'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import {
  assertSilent,
  errorOf,
  execute,
  folder,
  missing,
  peers,
  pluginDirectory,
  resultOf,
  stateEnv,
} from './harness.ts'
import { addressesOf, mounted, Network, twoSets } from './host-local.ts'

suite('HL host-local, the files', { skip: missing }, () => {
  test('HL-15 a file per address with container and interface, mode 0600 in a directory 0755', async () => {
    const network = new Network({ ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: 'fd00:0:0::/64' }]] })
    await network.add('c1')
    assert.deepEqual(network.reserved(), ['10.1.2.2', 'fd00::2'])
    for (const name of network.reserved()) {
      assert.equal(network.text(name), 'c1\r\neth0')
      assert.equal(statSync(network.file(name)).mode & 0o777, 0o600)
    }
    assert.equal(statSync(network.directory).mode & 0o777, 0o755)
  })

  test('HL-16 last_reserved_ip and lock, also after a request that failed', async () => {
    const network = new Network({ ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: '10.2.2.0/30' }]] })
    await network.add('c1')
    assert.deepEqual([network.text('last_reserved_ip.0'), network.text('last_reserved_ip.1')], ['10.1.2.2', '10.2.2.2'])
    assert.equal(statSync(network.file('lock')).mode & 0o777, 0o750)
    await network.refusal('c2')
    assert.equal(network.text('last_reserved_ip.0'), '10.1.2.3')
  })

  test('HL-17 the default directory is /var/lib/cni/networks', async () => {
    const network = new Network()
    const varLib = folder('var-lib')
    const command = ['unshare', '--mount', 'sh', '-c', `mount --bind ${varLib} /var/lib && exec "$@"`, 'sh']
    const outcome = await execute([...command, join(pluginDirectory(), 'host-local')], {
      env: {
        PATH: process.env['PATH'] ?? '',
        CNI_PATH: pluginDirectory(),
        ...stateEnv(),
        ...network.env('ADD', 'c1'),
      },
      stdin: JSON.stringify(network.config({ ipam: { type: 'host-local', subnet: '10.1.2.0/24' } })),
    })
    assert.deepEqual(addressesOf(outcome), ['10.1.2.2'])
    assert.equal(readFileSync(join(varLib, 'cni/networks/net/10.1.2.2'), 'utf8'), 'c1\r\neth0')
  })

  test('HL-18 goes round: a released address rests, gateway and taken ones are left out', async () => {
    const network = new Network({ subnet: '10.1.2.0/29', gateway: '10.1.2.4' })
    assert.deepEqual(await network.add('stays'), ['10.1.2.1'])
    const given: string[] = []
    for (let round = 0; round < 6; round++) {
      given.push(...(await network.add('c1')))
      await network.del('c1')
    }
    assert.deepEqual(given, ['10.1.2.2', '10.1.2.3', '10.1.2.5', '10.1.2.6', '10.1.2.2', '10.1.2.3'])
  })

  test('HL-19 a last address that is none, or of another range, starts from the beginning', async () => {
    const network = new Network()
    for (const [id, text] of [
      ['c1', 'garbage'],
      ['c2', '192.0.2.1'],
      ['c3', ''],
    ] as const) {
      mkdirSync(network.directory, { recursive: true })
      writeFileSync(network.file('last_reserved_ip.0'), text)
      assert.deepEqual(await network.add(id), [`10.1.2.${Number(id[1]) + 1}`], text)
    }
  })

  test('HL-20 a full range says which, and code 102', async () => {
    const network = new Network({ subnet: '10.1.2.0/30' })
    await network.add('c1')
    const error = errorOf(await network.call('ADD', 'c2'))
    const text = 'failed to allocate for range 0: no IP addresses available in range set: 10.1.2.1-10.1.2.2'
    assert.deepEqual([error.code, error.msg], [102, text])
    assertSilent(await network.call('STATUS', ''))
  })

  test('HL-35 a link in place of the next address, or of the last one, is not followed', async () => {
    const network = new Network()
    const victim = join(folder('victim'), 'file')
    mkdirSync(network.directory)
    symlinkSync(victim, network.file('10.1.2.2'))
    symlinkSync(victim, network.file('last_reserved_ip.0'))
    assert.deepEqual(await network.add('c1'), ['10.1.2.3'])
    await network.del('c1')
    assert.equal(existsSync(victim), false)
  })
})

suite('HL host-local, the end of an attachment', { skip: missing }, () => {
  test('HL-28 DEL releases by container and interface, once and twice, and files of old releases', async () => {
    const network = new Network(twoSets)
    await network.del('c1')
    assert.equal(existsSync(network.directory), false)
    await network.add('c1')
    await network.add('c1', { CNI_IFNAME: 'net1' })
    await network.del('c1')
    await network.del('c1', { CNI_NETNS: '' })
    assert.deepEqual(network.reserved(), ['10.1.2.3', '10.2.2.3'])
    await network.del('c1', { CNI_IFNAME: 'net1' })
    writeFileSync(network.file('10.1.2.40'), 'old')
    writeFileSync(network.file('10.1.2.41'), 'older')
    await network.del('old')
    assert.deepEqual(network.reserved(), ['10.1.2.41'])
  })

  test('HL-29 DEL needs neither valid ranges nor arguments', async () => {
    const network = new Network()
    for (const broken of [{ subnet: '10.1.2.3/33' }, { ranges: 'none' }, {}]) {
      network.ipam = { subnet: '10.1.2.0/24' }
      await network.add('c1')
      network.ipam = broken
      await network.del('c1', { CNI_ARGS: 'FOO' })
      assert.deepEqual(network.reserved(), [])
    }
  })

  test('HL-30 CHECK wants the reservation, and the one that prevResult tells of', async () => {
    const network = new Network(twoSets)
    const prevResult = resultOf(await network.call('ADD', 'c1'))
    const check = (more: object) => network.call('CHECK', 'c1', {}, more)
    assertSilent(await check({ prevResult }))
    assertSilent(await check({}))
    const other = structuredClone(prevResult)
    other.ips[0].address = '10.1.2.77/24'
    assert.match(errorOf(await check({ prevResult: other })).msg, /10.1.2.2 is reserved/)
    const foreign = { ...prevResult, ips: [...prevResult.ips, { address: '192.0.2.1/24' }] }
    assertSilent(await check({ prevResult: foreign }))
    unlinkSync(network.file('10.2.2.2'))
    assert.match(errorOf(await check({ prevResult })).msg, /10.2.2.2 is in prevResult/)
    unlinkSync(network.file('10.1.2.2'))
    const error = errorOf(await check({ prevResult }))
    assert.deepEqual([error.code, error.msg], [103, 'host-local: Failed to find address added by container c1'])
  })

  test('HL-32 an empty file blocks its address no longer than a minute, and is never given twice', async () => {
    const network = new Network()
    await network.add('c1')
    for (const name of ['10.1.2.3', '10.1.2.4']) writeFileSync(network.file(name), '')
    utimesSync(network.file('10.1.2.3'), Date.now() / 1000 - 90, Date.now() / 1000 - 90)
    assert.deepEqual(await network.add('c2'), ['10.1.2.5'])
    assertSilent(await network.gc('c1', 'c2'))
    assert.deepEqual(network.reserved(), ['10.1.2.2', '10.1.2.4', '10.1.2.5'])
    truncateSync(network.file('10.1.2.2'))
    await network.del('c1')
    assert.deepEqual(network.reserved(), ['10.1.2.4', '10.1.2.5'])
  })

  test('HL-33 GC frees what no valid attachment owns, of this network only', async () => {
    const network = new Network()
    for (const id of ['c1', 'c2', 'c3']) await network.add(id)
    await network.add('c1', { CNI_IFNAME: 'net1' })
    writeFileSync(network.file('10.1.2.40'), 'c2') // of an old release, valid
    writeFileSync(network.file('10.1.2.41'), 'kept out by hand')
    mkdirSync(join(network.dataDir, 'other'))
    writeFileSync(join(network.dataDir, 'other', '10.1.2.2'), 'c9\r\neth0')
    assertSilent(await network.call('GC', ''))
    assert.equal(network.reserved().length, 6, 'no list is no reason to remove anything')
    for (let time = 0; time < 2; time++) assertSilent(await network.gc('c2'))
    assert.deepEqual(network.reserved(), ['10.1.2.3', '10.1.2.40', '10.1.2.41'])
    assertSilent(await network.gc())
    assert.deepEqual(network.reserved(), ['10.1.2.41'])
    assert.deepEqual(readdirSync(join(network.dataDir, 'other')), ['10.1.2.2'])
  })

  test('GC-11 an address that was taken while GC was under way stays', async () => {
    const network = new Network()
    await network.add('gone')
    // What was taken within the tick of the file system's clock before a GC may stay as well: this is older.
    const before = Date.now() / 1000 - 1
    utimesSync(network.file('10.1.2.2'), before, before)
    writeFileSync(network.file('10.1.2.40'), 'racing\r\neth0')
    const soon = Date.now() / 1000 + 3
    utimesSync(network.file('10.1.2.40'), soon, soon)
    assertSilent(await network.gc())
    assert.deepEqual(network.reserved(), ['10.1.2.40'])
  })

  test('STA-02 STA-06 ERR-13 STATUS tells where nothing can be written, and needs no range', async () => {
    const network = new Network({})
    assertSilent(await network.call('STATUS', ''))
    assert.equal(existsSync(network.directory), false)
    rmSync(network.dataDir, { recursive: true })
    assertSilent(await network.call('STATUS', ''))
    writeFileSync(network.dataDir, 'a file')
    const error = errorOf(await network.call('STATUS', ''))
    assert.equal(error.code, 50)
    assert.ok(error.msg.includes(network.dataDir))
    rmSync(network.dataDir)
    mkdirSync(network.dataDir)
    await mounted(network.dataDir, 'ro', async () => {
      const { code, msg } = errorOf(await network.call('STATUS', ''))
      assert.equal(code, 50)
      assert.match(msg, /read-only/)
    })
  })
})

suite('HL host-local beside upstream', {
  skip: missing ?? (peers === undefined ? 'needs PEERS_DIR' : undefined),
}, () => {
  test('HL-16 upstream and ours give, find and release in one directory by turns', async () => {
    const network = new Network({ ranges: [[{ subnet: '10.1.2.0/28' }], [{ subnet: 'fd00::/64' }]] })
    const both = [network.call.bind(network), network.upstream.bind(network)] as const
    const given: string[] = []
    for (let index = 0; index < 12; index++) given.push(addressesOf(await both[index % 2]!('ADD', `c${index}`))[0]!)
    assert.deepEqual(
      given,
      Array.from({ length: 12 }, (_, index) => `10.1.2.${index + 2}`),
    )
    for (const call of both) errorOf(await call('ADD', 'c3'))
    for (let index = 0; index < 12; index++) {
      for (const call of both) assertSilent(await call('CHECK', `c${index}`))
      assertSilent(await both[(index + Math.floor(index / 2)) % 2]!('DEL', `c${index}`))
      for (const call of both) errorOf(await call('CHECK', `c${index}`))
    }
    assert.deepEqual(network.reserved(), [])
    assert.deepEqual(
      [await network.add('next'), addressesOf(await network.upstream('ADD', 'after'))],
      [
        ['10.1.2.14', 'fd00::e'],
        ['10.1.2.2', 'fd00::f'],
      ],
    )
  })

  test('HL-31 upstream and ours at once give no address twice', async () => {
    const network = new Network({ subnet: '10.1.0.0/16' })
    const ids = Array.from({ length: 40 }, (_, index) => `c${index}`)
    const outcomes = await Promise.all(
      ids.map((id, index) => (index % 2 === 0 ? network.call('ADD', id) : network.upstream('ADD', id))),
    )
    assert.equal(new Set(outcomes.flatMap(addressesOf)).size, 40)
    assert.equal(network.reserved().length, 40)
    await Promise.all(ids.map((id, index) => (index % 2 === 1 ? network.del(id) : network.upstream('DEL', id))))
    assert.deepEqual(network.reserved(), [])
  })
})
