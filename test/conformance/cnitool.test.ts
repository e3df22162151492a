// SPDX-License-Identifier: Apache-2.0
// cnitool: items TOOL of the conformance list, and upstream's program beside ours where lab/peers has built it.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import {
  assertSilent,
  Bench,
  fail,
  folder,
  missing,
  netns,
  type Outcome,
  peers,
  pluginDirectory,
  print,
  stateEnv,
} from './harness.ts'

const gone = '/run/netns/none'
const result = { cniVersion: '1.0.0', ips: [{ address: '10.0.0.2/24' }] }

function bench(cniVersion = '1.0.0', does: Record<string, string> = {}): Bench {
  const made = new Bench().list('n', cniVersion, ['p'])
  made.fakes.add('p', { ADD: print({ ...result, cniVersion }), ...does })
  return made
}

const containerId = (path: string) => `cnitool-${createHash('sha512').update(path).digest('hex').slice(0, 20)}`

suite('TOOL cnitool', { skip: missing, concurrency: 2 }, () => {
  test('TOOL-01 the five verbs call the plugin with what the path gives', async () => {
    const made = bench('1.1.0')
    for (const verb of ['add', 'check', 'del', 'gc', 'status']) {
      const outcome = await made.cnitool([verb, 'n', gone])
      assert.equal(outcome.rc, 0, outcome.stderr)
    }
    const calls = made.fakes.take()
    assert.deepEqual(
      calls.map(call => call.verb),
      ['ADD', 'CHECK', 'DEL', 'GC', 'STATUS'],
    )
    for (const { verb, env } of calls) assert.equal(env['CNI_NETNS'], ['GC', 'STATUS'].includes(verb) ? '' : gone)
  })

  test('TOOL-02 NETCONFPATH and CNI_PATH have the known defaults', async () => {
    const made = bench()
    const noConf = await made.cnitool(['add', 'no-such-network', gone], { NETCONFPATH: '' })
    assert.equal(noConf.rc, 1)
    assert.match(noConf.stderr, /\/etc\/cni\/net\.d/)
    const noPath = await made.cnitool(['add', 'n', gone], { CNI_PATH: '' })
    assert.equal(noPath.rc, 1)
    assert.match(noPath.stderr, /no paths provided/)
  })

  test('TOOL-03 CAP_ARGS is a JSON object', async () => {
    const made = new Bench().list('n', '1.0.0', [{ type: 'p', capabilities: { portMappings: true } }])
    made.fakes.add('p')
    const portMappings = [{ hostPort: 80, containerPort: 8080, protocol: 'tcp' }]
    assert.equal((await made.cnitool(['add', 'n', gone], { CAP_ARGS: JSON.stringify({ portMappings }) })).rc, 0)
    assert.deepEqual(JSON.parse(made.fakes.take()[0]!.stdin).runtimeConfig, { portMappings })
    for (const text of ['{', '[]', 'x'])
      assert.equal((await made.cnitool(['add', 'n', gone], { CAP_ARGS: text })).rc, 1, text)
    assert.deepEqual(made.fakes.order(), [])
  })

  test('TOOL-04 CNI_ARGS is K=V;K=V, nothing empty', async () => {
    const made = bench()
    assert.equal((await made.cnitool(['add', 'n', gone], { CNI_ARGS: 'A=B;C=D' })).rc, 0)
    assert.equal(made.fakes.take()[0]!.env['CNI_ARGS'], 'A=B;C=D')
    for (const args of ['A=', '=B', 'A', 'A=B=C', 'A=B;']) {
      const outcome = await made.cnitool(['add', 'n', gone], { CNI_ARGS: args })
      assert.equal(outcome.rc, 1)
      assert.match(outcome.stderr, /invalid CNI_ARGS pair "/)
    }
    assert.deepEqual(made.fakes.order(), [])
  })

  test('TOOL-05 the interface is that of the flag, of CNI_IFNAME, or eth0', async () => {
    const made = bench()
    const ifName = async (args: string[], env: Record<string, string>) => {
      assert.equal((await made.cnitool(args, env)).rc, 0)
      return made.fakes.take()[0]!.env['CNI_IFNAME']
    }
    assert.equal(await ifName(['add', 'n', gone], {}), 'eth0')
    assert.equal(await ifName(['add', 'n', gone], { CNI_IFNAME: '' }), 'eth0')
    assert.equal(await ifName(['add', 'n', gone], { CNI_IFNAME: 'net5' }), 'net5')
    assert.equal(await ifName(['add', '-i', 'net6', 'n', gone], { CNI_IFNAME: 'net5' }), 'net6')
    assert.equal(await ifName(['--ifname', 'net7', 'add', 'n', gone], {}), 'net7')
    assert.equal(await ifName(['add', 'n', gone, '--ifname=net8'], {}), 'net8')
  })

  test('TOOL-06 the container id is made of the absolute path, links are not resolved', async () => {
    const vectors = {
      '/var/run/netns/testing': 'cnitool-77383ca0a0715733ca6f',
      '/run/netns/testing': 'cnitool-43057b9dcc39fe733071',
      '/var/run/netns/blue': 'cnitool-296747069b8a02dc4e2a',
    }
    const made = bench()
    const idOf = async (path: string, cwd?: string) => {
      assert.equal((await made.cnitool(['del', 'n', path], {}, { cwd })).rc, 0)
      const { env } = made.fakes.take()[0]!
      return [env['CNI_CONTAINERID'], env['CNI_NETNS']]
    }
    for (const [path, id] of Object.entries(vectors)) assert.deepEqual(await idOf(path), [id, path])
    const directory = folder('links')
    symlinkSync('/run/netns/testing', join(directory, 'link'))
    const link = join(directory, 'link')
    assert.deepEqual(await idOf('./x/../link', directory), [containerId(link), link])
  })

  test('TOOL-07 add prints the result in four spaces without newline at the end, others print nothing', async () => {
    const made = bench('1.1.0')
    const outcome = await made.cnitool(['add', 'n', gone])
    assert.equal(outcome.stdout, JSON.stringify({ ...result, cniVersion: '1.1.0' }, null, 4))
    for (const verb of ['check', 'del', 'gc', 'status']) assertSilent(await made.cnitool([verb, 'n', gone]))
  })

  test('TOOL-08 errors are on stderr, exit code 1', async () => {
    const made = bench('1.0.0', { ADD: fail(102, 'range is full', '10.0.0.0/24') })
    const failed = (outcome: Outcome, message: RegExp) => {
      assert.deepEqual([outcome.rc, outcome.stdout], [1, ''])
      assert.match(outcome.stderr, message)
    }
    failed(await made.cnitool(['add', 'x', gone]), /no net configuration with name "x"/)
    failed(await made.cnitool(['add', 'n', gone]), /plugin type="p" failed \(add\): range is full; 10\.0\.0\.0\/24/)
  })

  test('TOOL-09 no arguments: help, exit code 0; a verb without its two: usage on stderr, exit code 1', async () => {
    const help = await bench().cnitool([])
    assert.equal(help.rc, 0)
    assert.match(help.stdout, /Usage:/)
    for (const args of [['add'], ['add', 'n'], ['gc', 'n']]) {
      const outcome = await bench().cnitool(args)
      assert.deepEqual([outcome.rc, outcome.stdout], [1, ''])
      assert.match(outcome.stderr, /Usage:/)
    }
  })

  test('TOOL-10 an unknown verb is an error', async () => {
    const outcome = await bench().cnitool(['foo', 'n', gone])
    assert.equal(outcome.rc, 1)
    assert.match(outcome.stderr, /unknown command/)
  })

  test('TOOL-11 gc takes back every kept attachment of the network, then collects without the key', async () => {
    const made = bench('1.1.0').list('m', '1.1.0', ['p'])
    for (const [network, path] of [
      ['n', '/run/netns/a'],
      ['n', '/run/netns/b'],
      ['m', '/run/netns/a'],
    ] as const)
      assert.equal((await made.cnitool(['add', network, path])).rc, 0)
    made.fakes.take()
    assertSilent(await made.cnitool(['gc', 'n', gone]))
    const calls = made.fakes.take()
    assert.deepEqual(
      calls.map(call => call.verb),
      ['DEL', 'DEL', 'GC'],
    )
    const ids = ['/run/netns/a', '/run/netns/b'].map(containerId).sort()
    assert.deepEqual(
      calls
        .slice(0, 2)
        .map(call => call.env['CNI_CONTAINERID'])
        .sort(),
      ids,
    )
    assert.equal('cni.dev/valid-attachments' in JSON.parse(calls[2]!.stdin), false)
    assert.deepEqual(made.cached(), [`m-${containerId('/run/netns/a')}-eth0`])
  })

  test('TOOL-12 del works although the namespace is gone', async () => {
    const made = bench()
    const { path, name } = netns('gone')
    assert.equal((await made.cnitool(['add', 'n', path])).rc, 0)
    made.fakes.take()
    await made.cnitool(['add', 'n', path], {}, { tool: ['ip', 'netns', 'del', name] })
    assertSilent(await made.cnitool(['del', 'n', path]))
    assert.deepEqual(made.fakes.order(), ['p DEL'])
  })

  test('TOOL-13 status is silent, or fails with the text of the plugin; before 1.1.0 nothing is asked', async () => {
    const made = bench('1.1.0', { STATUS: fail(50, 'not ready', 'no uplink') })
    const outcome = await made.cnitool(['status', 'n', gone])
    assert.deepEqual([outcome.rc, outcome.stdout], [1, ''])
    assert.match(outcome.stderr, /not ready; no uplink/)
    made.fakes.take()
    made.list('n', '1.0.0', ['p'])
    assertSilent(await made.cnitool(['status', 'n', gone]))
    assert.deepEqual(made.fakes.order(), [])
  })

  test('/proc/PID/ns/net and links to it are passed to the plugin as they are', async () => {
    const made = bench()
    const directory = folder('proc')
    mkdirSync(join(directory, 'netns'))
    const link = join(directory, 'netns', 'ae06166543d7')
    symlinkSync('/proc/1/ns/net', link)
    for (const path of ['/proc/1/ns/net', link]) {
      assert.equal((await made.cnitool(['add', 'n', path])).rc, 0)
      assert.equal(made.fakes.take()[0]!.env['CNI_NETNS'], path)
    }
  })
})

// One line: what is called, in which state. Both programs get fresh fakes and a fresh cache.
const scenarios: readonly [what: string, version: string, does: Record<string, string>, verbs: readonly string[]][] = [
  ['a life in 1.1.0', '1.1.0', {}, ['status', 'add', 'check', 'del', 'del', 'gc']],
  ['a life in 1.0.0', '1.0.0', {}, ['status', 'add', 'check', 'del', 'gc']],
  [
    'a life in 0.4.0',
    '0.4.0',
    {
      ADD: print({
        cniVersion: '0.4.0',
        ips: [{ version: '4', address: '10.0.0.2/24' }],
        routes: [{ dst: '0.0.0.0/0' }],
      }),
    },
    ['add', 'check', 'del'],
  ],
  [
    'a life in 0.2.0',
    '0.2.0',
    { ADD: print({ ip4: { ip: '10.0.0.2/24', gateway: '10.0.0.1', routes: [{ dst: '0.0.0.0/0' }] } }) },
    ['add', 'check', 'del'],
  ],
  ['an empty result', '0.3.1', { ADD: "echo '{}'" }, ['add', 'del']],
  [
    'a full result',
    '1.1.0',
    {
      ADD: print({
        cniVersion: '1.1.0',
        interfaces: [
          { name: 'eth0', mac: '02:00:00:00:00:01', mtu: 1450, sandbox: gone, pciID: '0000:00:1f.6', socketPath: '/s' },
        ],
        ips: [
          { address: 'FD00:0::2/64', gateway: 'fd00::1', interface: 0 },
          { address: '10.0.0.2/24', interface: 0 },
        ],
        routes: [{ dst: '::/0', gw: 'fd00::1', mtu: 1400, advmss: 1360, priority: 5, table: 0, scope: 0 }],
        dns: { nameservers: ['10.0.0.1'], domain: 'x', search: ['y'], options: ['z'] },
      }),
    },
    ['add', 'check', 'del'],
  ],
  ['ADD fails', '1.0.0', { ADD: fail(11, 'later', 'busy') }, ['add', 'del']],
  ['DEL fails', '1.0.0', { DEL: fail(100, 'no') }, ['add', 'del', 'check']],
  [
    'CHECK and STATUS fail',
    '1.1.0',
    { CHECK: fail(103, 'missing'), STATUS: fail(51, 'limited') },
    ['add', 'check', 'status'],
  ],
  ['GC fails', '1.1.0', { GC: fail(100, 'no') }, ['add', 'gc']],
  ['no error object', '1.0.0', { ADD: 'echo oops >&2; exit 3' }, ['add']],
]

suite("TOOL cnitool beside upstream's", { skip: missing ?? (peers ? false : 'needs lab/peers') }, () => {
  for (const [what, version, does, verbs] of scenarios)
    test(`${what}: the same exit codes, results, calls and cache`, async () => {
      const [ours, theirs] = [[], [`${peers}/cnitool`]].map(tool => life(version, does, verbs, tool))
      assert.deepEqual(await ours, await theirs)
    })

  async function life(version: string, does: Record<string, string>, verbs: readonly string[], tool: string[]) {
    const made = bench(version, does)
    const seen = []
    for (const verb of verbs) {
      const outcome = await made.cnitool([verb, 'n', gone], { CNI_ARGS: 'K=V' }, tool.length > 0 ? { tool } : {})
      const calls = made.fakes
        .take()
        .map(call => ({ verb: call.verb, stdin: JSON.parse(call.stdin), env: cniVariables(call.env) }))
      const cache = made.cached().map(name => {
        const { config: _, ...entry } = JSON.parse(readFileSync(made.cacheFile(name), 'utf8'))
        return { name, ...entry }
      })
      seen.push({ verb, rc: outcome.rc, stdout: outcome.stdout, message: lastLine(outcome), calls, cache })
    }
    return seen
  }

  const cniVariables = (env: Record<string, string>) =>
    Object.fromEntries(
      Object.entries(env)
        .filter(([key]) => key.startsWith('CNI_') && key !== 'CNI_PATH')
        .sort(),
    )

  // Upstream prints `Error: …`, its usage, and the message again.
  const lastLine = ({ stderr }: Outcome) =>
    stderr
      .trimEnd()
      .split('\n')
      .at(-1)
      ?.replace(/^Error: /, '')
})

suite("TOOL our plugins by upstream's cnitool and by ours", {
  skip: missing ?? (peers ? false : 'needs lab/peers'),
}, () => {
  const ipam = (dataDir: string) => ({
    type: 'host-local',
    subnet: '10.77.0.0/24',
    routes: [{ dst: '0.0.0.0/0' }],
    dataDir,
  })

  /** What a whole life of an attachment shows: exit codes and stdout of each verb, without what is different by nature. */
  async function life(
    tool: readonly string[] | undefined,
    entry: (dataDir: string) => object,
    verbs: readonly string[],
  ) {
    const made = new Bench()
    const [node, container] = [netns('node'), netns('pod')]
    const link = join(folder('links'), 'pod')
    symlinkSync(container.path, link)
    made.list('n', '1.1.0', [entry(folder('data'))])
    const env = { CNI_PATH: pluginDirectory(), ...stateEnv() }
    const seen = []
    for (const verb of verbs) {
      const options = { inNetns: node.path, ...(tool === undefined ? {} : { tool }) }
      const { rc, stdout } = await made.cnitool([verb, 'n', link], env, options)
      const shown = stdout.replaceAll(link, 'LINK').replace(/[0-9a-f]{2}(:[0-9a-f]{2}){5}/g, 'MAC')
      seen.push([verb, rc, shown.replace(/"name": "(?!eth0)[^"]*"/g, '"name": "HOST"')])
    }
    return seen
  }

  const verbs = ['status', 'check', 'add', 'add', 'check', 'del', 'del', 'check', 'add', 'gc', 'check']
  for (const type of ['host-local', 'veth-route'])
    test(`${type}: the same exit codes and results, through a link to the namespace`, async () => {
      const entry = (dataDir: string) => ({ type, ipam: ipam(dataDir) })
      const ours = await life(undefined, entry, verbs)
      assert.deepEqual(ours, await life([`${peers}/cnitool`], entry, verbs))
      assert.deepEqual(
        ours.map(each => each[1]),
        [0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 1],
      )
    })
})
