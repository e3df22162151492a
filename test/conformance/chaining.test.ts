// SPDX-License-Identifier: Apache-2.0
// Order of plugins and what they are given of one another: items CHN and those of GC and STATUS that are the runtime's.
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { suite, test } from 'node:test'
import {
  assertSilent,
  Bench,
  errorOf,
  fail,
  folder,
  leftovers,
  mainPlugin,
  missing,
  netns,
  peers,
  plugin,
  pluginDirectory,
  pod,
  print,
  resultOf,
  run as runTool,
  stateEnv,
} from './harness.ts'

const gone = '/run/netns/none'
const ips = (last: number) => ({ ips: [{ address: `10.0.0.${last}/24` }] })

/** A chain of three whose results differ. */
function chain(cniVersion: string, does: Record<string, Record<string, string>> = {}): Bench {
  const bench = new Bench().list('n', cniVersion, ['a', 'b', 'c'])
  for (const [index, name] of ['a', 'b', 'c'].entries()) {
    const versioned = cniVersion < '1.0.0' ? { ips: [{ version: '4', ...ips(index + 2).ips[0] }] } : ips(index + 2)
    bench.fakes.add(name, { ADD: print({ cniVersion, ...versioned }), ...does[name] })
  }
  return bench
}

/** Who was called with which address in prevResult. */
const prevResults = (bench: Bench) =>
  bench.fakes
    .take()
    .map(({ name, verb, stdin }) => `${verb} ${name} ${JSON.parse(stdin).prevResult?.ips[0].address ?? '-'}`)

const run = async (bench: Bench, verb: string) => {
  const outcome = await bench.cnitool([verb, 'n', gone])
  assert.equal(outcome.rc, 0, outcome.stderr)
}

suite('CHN chains, the runtime', { skip: missing, concurrency: 2 }, () => {
  test('CHN-01 CHN-03 CHN-04 ADD hands results on, CHECK and DEL get the last one, DEL goes backwards', async () => {
    const bench = chain('0.4.0')
    for (const verb of ['add', 'check', 'del']) await run(bench, verb)
    assert.deepEqual(prevResults(bench), [
      'ADD a -',
      'ADD b 10.0.0.2/24',
      'ADD c 10.0.0.3/24',
      'CHECK a 10.0.0.4/24',
      'CHECK b 10.0.0.4/24',
      'CHECK c 10.0.0.4/24',
      'DEL c 10.0.0.4/24',
      'DEL b 10.0.0.4/24',
      'DEL a 10.0.0.4/24',
    ])
  })

  test('CHN-03 DEL of a list before 0.4.0 has no prevResult', async () => {
    const bench = chain('0.3.1')
    for (const verb of ['add', 'del']) await run(bench, verb)
    assert.deepEqual(prevResults(bench).slice(3), ['DEL c -', 'DEL b -', 'DEL a -'])
  })

  test('CHN-04 GC and STATUS go forwards', async () => {
    const bench = chain('1.1.0')
    for (const verb of ['gc', 'status']) await run(bench, verb)
    assert.deepEqual(bench.fakes.order(), ['a GC', 'b GC', 'c GC', 'a STATUS', 'b STATUS', 'c STATUS'])
  })

  test('CHN-07 CHN-08 ADD stops at a failure, names the plugin and calls no DEL by itself', async () => {
    const bench = chain('1.0.0', { b: { ADD: fail(11, 'later') } })
    const outcome = await bench.cnitool(['add', 'n', gone])
    assert.equal(outcome.rc, 1)
    assert.match(outcome.stderr, /plugin type="b" failed \(add\): later/)
    assert.deepEqual(bench.fakes.order(), ['a ADD', 'b ADD'])
  })

  test('CHN-08 the name in the own object of a plugin is told, CHECK errors are not wrapped', async () => {
    const bench = new Bench().list('n', '1.0.0', [{ type: 'p', name: 'own' }])
    bench.fakes.add('p', { ADD: fail(100, 'no'), DEL: fail(100, 'no'), CHECK: fail(100, 'no') })
    const stderr = async (verb: string) => (await bench.cnitool([verb, 'n', gone])).stderr
    assert.match(await stderr('add'), /plugin type="p" name="own" failed \(add\): no/)
    assert.match(await stderr('del'), /plugin type="p" name="own" failed \(delete\): no/)
    assert.doesNotMatch(await stderr('check'), /plugin type/)
  })

  test('CHN-09 DEL stops at a failure, and a second one finishes', async () => {
    const bench = chain('1.0.0', { b: { DEL: fail(100, 'no') } })
    await run(bench, 'add')
    bench.fakes.take()
    assert.equal((await bench.cnitool(['del', 'n', gone])).rc, 1)
    assert.deepEqual(prevResults(bench), ['DEL c 10.0.0.4/24', 'DEL b 10.0.0.4/24'])
    bench.fakes.add('b')
    await run(bench, 'del')
    assert.deepEqual(prevResults(bench), ['DEL c 10.0.0.4/24', 'DEL b 10.0.0.4/24', 'DEL a 10.0.0.4/24'])
  })

  test('GC-08 GC-10 stale attachments get DEL backwards from the list they were made with, then GC without container', async () => {
    const bench = chain('1.1.0')
    await run(bench, 'add')
    bench.list('n', '1.1.0', ['a'])
    bench.fakes.take()
    await run(bench, 'gc')
    const calls = bench.fakes.take()
    assert.deepEqual(
      calls.map(({ name, verb }) => `${name} ${verb}`),
      ['c DEL', 'b DEL', 'a DEL', 'a GC'],
    )
    const { env } = calls.at(-1)!
    assert.deepEqual(
      [env['CNI_CONTAINERID'], env['CNI_NETNS'], env['CNI_IFNAME'], env['CNI_PATH']],
      ['', '', '', bench.fakes.directory],
    )
  })

  test('GC-08 GC goes on over failures and tells all of them', async () => {
    const bench = chain('1.1.0', { a: { GC: fail(100, 'first') }, c: { GC: fail(100, 'second') } })
    const outcome = await bench.cnitool(['gc', 'n', gone])
    assert.equal(outcome.rc, 1)
    assert.match(outcome.stderr, /failed to GC plugin a: first\n.*failed to GC plugin c: second/)
    assert.deepEqual(bench.fakes.order(), ['a GC', 'b GC', 'c GC'])
  })

  test('GC-09 disableGC: nothing is executed', async () => {
    const bench = chain('1.1.0')
    await run(bench, 'add')
    bench.fakes.take()
    bench.list('n', '1.1.0', ['a'], { disableGC: true })
    await run(bench, 'gc')
    assert.deepEqual(bench.fakes.order(), [])
  })

  test('STA-05 STATUS stops at the first error and keeps its text, before 1.1.0 it asks nobody', async () => {
    const bench = chain('1.1.0', { b: { STATUS: fail(50, 'not ready') } })
    const outcome = await bench.cnitool(['status', 'n', gone])
    assert.equal(outcome.rc, 1)
    assert.match(outcome.stderr, /^Error: not ready$/m)
    assert.deepEqual(bench.fakes.order(), ['a STATUS', 'b STATUS'])
    const old = chain('1.0.0')
    await run(old, 'status')
    assert.deepEqual(old.fakes.order(), [])
  })

  test('DEL-12 networks, containers and interfaces have entries of their own', async () => {
    const bench = chain('1.0.0').list('m', '1.0.0', ['a'])
    for (const args of [
      ['n', gone],
      ['m', gone],
      ['-i', 'net1', 'n', gone],
    ])
      assert.equal((await bench.cnitool(['add', ...args])).rc, 0)
    assert.equal(bench.cached().length, 3)
    assertSilent(await bench.cnitool(['del', 'n', gone]))
    assert.deepEqual(
      bench.cached().map(name => name.replace(/cnitool-\w+/, 'ID')),
      ['m-ID-eth0', 'n-ID-net1'],
    )
  })
})

const environment = {
  CNI_COMMAND: 'ADD',
  CNI_CONTAINERID: 'c1',
  CNI_IFNAME: 'eth0',
  CNI_NETNS: pod(),
}

suite('CHN chains, the plugin', { skip: missing }, () => {
  const config = (more: object) => ({
    cniVersion: '1.0.0',
    name: 'n',
    type: 'host-local',
    ipam: { type: 'host-local', subnet: '10.78.0.0/24', dataDir: folder('data') },
    ...more,
  })

  test('CHN-05 prevResult without version has that of the configuration', async () => {
    const old = config({ cniVersion: '0.2.0', prevResult: { ip4: { ip: '10.0.0.9/24' } } })
    assert.equal(resultOf(await plugin('host-local', environment, old)).cniVersion, '0.2.0')
  })

  test('CHN-06 prevResult of another family of formats is refused, of the wrong shape as well', async () => {
    for (const prevResult of [{ cniVersion: '0.2.0', ip4: { ip: '10.0.0.9/24' } }, { ips: 'x' }]) {
      const error = errorOf(await plugin('host-local', environment, config({ prevResult })))
      assert.match(error.msg, /^could not parse prevResult: /)
    }
    resultOf(await plugin('host-local', environment, config({ prevResult: { ip4: { ip: '10.0.0.9/24' } } })))
  })

  test('CHN-12 garbage in prevResult is error 6 or 7, nothing is reserved', async () => {
    const dataDir = folder('data')
    const ipam = { type: 'host-local', subnet: '10.78.0.0/24', dataDir }
    const garbage = [
      5,
      'x',
      [],
      true,
      { ips: [{ address: '10.0.0.9/24', interface: 99 }] },
      { ips: [{ address: '10.0.0.9/24', interface: -1 }] },
      { ips: [{ address: '10.0.0.9' }] },
      { ips: [{ address: 5 }] },
      { ips: [null] },
      { interfaces: [{ name: {} }] },
      { routes: [{ dst: '10.0.0.0/99' }] },
      { dns: { nameservers: 'x' } },
      { cniVersion: {} },
      { cniVersion: '9.9.9' },
    ]
    for (const prevResult of garbage) {
      const { code } = errorOf(await plugin('host-local', environment, config({ ipam, prevResult })))
      assert.ok(code === 6 || code === 7, JSON.stringify(prevResult))
    }
    assert.equal(existsSync(`${dataDir}/n/10.78.0.2`), false)
  })
})

const noPeers = missing ?? (peers ? false : 'needs lab/peers')

suite("CHN upstream's plugins beside ours", { skip: noPeers }, () => {
  const subnet = () => ({
    type: 'host-local',
    subnet: '10.83.0.0/24',
    routes: [{ dst: '0.0.0.0/0' }],
    dataDir: folder('data'),
  })

  /** A whole life of a list with cnitool on a node of its own; what is left on the node is compared with before. */
  async function live(plugins: readonly object[], look: (result: { ips: object[] }, pod: string) => void) {
    const bench = new Bench().list('n', '1.1.0', plugins)
    const [node, container] = [netns('node'), netns('pod')]
    const env = { CNI_PATH: `${pluginDirectory()}:${peers}`, ...stateEnv() }
    const cnitool = (verb: string) => bench.cnitool([verb, 'n', container.path], env, { inNetns: node.path })
    const result = resultOf(await cnitool('add'))
    look(result, container.name)
    assertSilent(await cnitool('check'))
    assertSilent(await cnitool('status'))
    assertSilent(await cnitool('del'))
    assert.doesNotMatch(leftovers([node.name]), /10\.83\.0\.|veth/)
    assert.doesNotMatch(leftovers([container.name]), /eth0/)
  }

  test('CHN-02 tuning after veth-route gets its result and passes it on', async () => {
    const sysctl = 'net.ipv4.conf.eth0.arp_filter'
    const chain = [
      { type: mainPlugin, ipam: subnet() },
      { type: 'tuning', sysctl: { [sysctl]: '1' }, dataDir: folder('tuning') },
    ]
    await live(chain, ({ ips }, pod) => {
      assert.deepEqual(ips, [{ address: '10.83.0.2/24', gateway: '10.83.0.1', interface: 1 }])
      assert.match(runTool('ip', ['netns', 'exec', pod, 'sysctl', '-n', sysctl]), /^1$/m)
    })
  })

  test("DLG-01 upstream's static is the IPAM of veth-route", async () => {
    const ipam = { type: 'static', addresses: [{ address: '10.83.0.7/24', gateway: '10.83.0.1' }] }
    await live([{ type: mainPlugin, ipam }], ({ ips }) =>
      assert.deepEqual(ips, [{ address: '10.83.0.7/24', gateway: '10.83.0.1', interface: 1 }]),
    )
  })

  test("DLG-01 our host-local is the IPAM of upstream's ptp", async () => {
    await live([{ type: 'ptp', ipam: subnet() }], ({ ips }) =>
      assert.deepEqual(ips, [{ address: '10.83.0.2/24', gateway: '10.83.0.1', interface: 1 }]),
    )
  })
})
