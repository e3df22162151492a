// SPDX-License-Identifier: Apache-2.0

// Goal: bad input is one clear CNI error with the right code and leaves nothing behind, whether a process of its own or an
// agent answers; and a password that stands in a configuration is nowhere to be read afterwards. Needs root.

import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import {
  type Attachment,
  assertSameState,
  errorOf,
  folder,
  makeLab,
  makeNetns,
  type Node,
  type RunningAgent,
  resultOf,
  skip,
} from './nodelab.ts'
import { testTwiceInWhole } from './suite-node.ts'
import { isWholeRun } from './whole-run.ts'

const SECRET = 'Correct-Horse-Battery-Staple'
/** Codes of ours: 102 address unavailable, 104 exists already, 105 of a delegate. */
type Bad = { what: string; code: number; msg: RegExp; more?: object; config?: string; netns?: () => string }

const place = () => {
  const directory = folder('places')
  writeFileSync(join(directory, 'file'), '')
  mkdirSync(join(directory, 'directory'))
  symlinkSync(join(directory, 'nothing'), join(directory, 'dangling'))
  symlinkSync(join(directory, 'loop'), join(directory, 'loop'))
  return directory
}
const deep = (levels: number) => `${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`
const hostLocal = (more: object) => ({ ipam: { type: 'host-local', ...more } })
const subnet = '10.10.10.0/24'

const bad: Bad[] = [
  // Not a configuration at all
  { what: 'nothing', code: 6, msg: /./, config: '' },
  { what: 'broken JSON', code: 6, msg: /./, config: '{"cniVersion": "1.0.0", "name": ' },
  { what: 'JSON that is no object', code: 6, msg: /./, config: '[]' },
  { what: 'bytes behind the JSON', code: 6, msg: /./, config: '{"cniVersion":"1.0.0","name":"podnet"} x' },
  { what: 'more than 1 MiB', code: 6, msg: /1 MiB/, config: `{"name": "podnet", "x": "${'x'.repeat(1 << 20)}"}` },
  { what: 'no name', code: 7, msg: /^missing network name/, more: { name: undefined } },
  { what: 'a name with a slash', code: 7, msg: /^invalid characters found in network name/, more: { name: 'a/b' } },
  { what: 'a version that nobody speaks', code: 1, msg: /^incompatible CNI versions/, more: { cniVersion: '9.9.9' } },
  // Values of the wrong type
  { what: 'mtu that is a text', code: 7, msg: /"mtu" is a string, want a number/, more: { mtu: '1500' } },
  { what: 'mtu below zero', code: 7, msg: /"mtu" is -1/, more: { mtu: -1 } },
  { what: 'ipMasq that is a text', code: 7, msg: /"ipMasq" is a string, want true or false/, more: { ipMasq: 'yes' } },
  {
    what: 'hostInterface that is a number',
    code: 7,
    msg: /"hostInterface" is a number, want a string/,
    more: { hostInterface: 7 },
  },
  { what: 'dns that is a list', code: 7, msg: /"dns" is/, more: { dns: [] } },
  {
    what: 'a host interface that is not there',
    code: 7,
    msg: /^Cannot find host interface "none"/,
    more: { hostInterface: 'none' },
  },
  // The IPAM
  { what: 'no ipam', code: 7, msg: /"ipam\.type" is missing/, more: { ipam: undefined } },
  { what: 'ipam that is a text', code: 7, msg: /"ipam" is/, more: { ipam: 'host-local' } },
  { what: 'an IPAM that is not installed', code: 105, msg: /no-such-ipam/, more: { ipam: { type: 'no-such-ipam' } } },
  { what: 'an IPAM by path', code: 7, msg: /\.\.\/host-local/, more: { ipam: { type: '../host-local' } } },
  { what: 'no subnet', code: 7, msg: /no IP ranges specified/, more: hostLocal({}) },
  { what: 'a subnet that is none', code: 7, msg: /subnet.* is "here"/, more: hostLocal({ subnet: 'here' }) },
  {
    what: 'octets with leading zeros (ROB-10)',
    code: 7,
    msg: /subnet.* is "010\.0\.0\.0\/8"/,
    more: hostLocal({ subnet: '010.0.0.0/8' }),
  },
  { what: 'a range outside of its subnet', code: 7, msg: /./, more: hostLocal({ subnet, rangeStart: '10.99.0.1' }) },
  {
    what: 'a range that ends before it starts',
    code: 7,
    msg: /./,
    more: hostLocal({ subnet, rangeStart: '10.10.10.9', rangeEnd: '10.10.10.8' }),
  },
  { what: 'a route to nowhere', code: 7, msg: /./, more: hostLocal({ subnet, routes: [{ dst: 'nowhere' }] }) },
  { what: 'a relative dataDir', code: 7, msg: /not an absolute path/, more: hostLocal({ subnet, dataDir: 'leases' }) },
  // The namespace
  {
    what: 'a namespace that is not there',
    code: 8,
    msg: /^failed to open netns "\/run\/netns\/none"/,
    netns: () => '/run/netns/none',
  },
  {
    what: 'a namespace that is a directory',
    code: 8,
    msg: /it is a directory/,
    netns: () => join(place(), 'directory'),
  },
  { what: 'a namespace that is a file', code: 8, msg: /it is a file/, netns: () => join(place(), 'file') },
  { what: 'a namespace that is a dangling link', code: 8, msg: /ENOENT/, netns: () => join(place(), 'dangling') },
  { what: 'a namespace that is a link to itself', code: 8, msg: /ELOOP/, netns: () => join(place(), 'loop') },
  {
    what: 'a namespace of another kind',
    code: 8,
    msg: /namespace of kind "uts"/,
    netns: () => `/proc/${process.pid}/ns/uts`,
  },
]

/** Those that the process which was called sees itself. What a plugin makes of its configuration is the same code for an agent. */
const seenByEntry = bad.filter(({ config, netns }) => config !== undefined || netns !== undefined)

// Both at once: each waits ten seconds for a stdin that stays open.
describe('bad input', { skip, concurrency: 2 }, () => {
  for (const mode of ['standalone', 'agent'] as const)
    describe(mode, { concurrency: 1 }, () => {
      let node: Node
      let agent: RunningAgent | undefined
      let kept: string[]
      let netns: string

      before(async () => {
        node = makeLab({ mode }).nodes[0]!
        if (mode === 'agent') agent = await node.startAgent({ args: ['--log-level', 'debug'] })
        netns = makeNetns('pod').path
        const first = { containerId: 'first', netns }
        resultOf(await node.call('ADD', first))
        resultOf(await node.call('DEL', first))
        kept = node.state({ ...node, path: netns, name: netns.split('/').at(-1)! })
      })
      after(() => agent?.[Symbol.asyncDispose]())
      const state = () => node.state({ ...node, path: netns, name: netns.split('/').at(-1)! })

      test('ADD: one error with the right code for each, nothing left behind, and DEL succeeds where it can', async () => {
        const surprises: object[] = []
        for (const { what, code, msg, more, config, netns: path } of mode === 'agent' || isWholeRun
          ? bad
          : seenByEntry) {
          const it: Attachment = {
            containerId: 'bad',
            netns: path?.() ?? netns,
            ...(config === undefined ? {} : { config }),
          }
          const outcome = await node.call('ADD', it, { more: { password: SECRET, ...more } })
          const error = errorOf(outcome)
          if (error.code !== code || !msg.test(error.msg) || outcome.stderr !== '') surprises.push({ what, ...outcome })
          assertSameState(state(), kept, `after ${what}`)
          if (path !== undefined) resultOf(await node.call('DEL', it))
        }
        assert.deepEqual(surprises, [])
      })

      test('ADD: environment that is missing or wrong is error 4 and says which', async () => {
        for (const [env, msg] of [
          [{ CNI_CONTAINERID: '' }, /CNI_CONTAINERID/],
          [{ CNI_NETNS: '' }, /CNI_NETNS/],
          [{ CNI_IFNAME: '' }, /CNI_IFNAME/],
          [{ CNI_CONTAINERID: '../../etc' }, /invalid characters in containerID/],
          [{ CNI_IFNAME: 'sixteen-letters-' }, /interface name is too long/],
          [{ CNI_IFNAME: 'a/b' }, /interface name contains/],
          [{ CNI_COMMAND: 'UPDATE' }, /unknown CNI_COMMAND: UPDATE/],
        ] as const) {
          const error = errorOf(await node.call('ADD', { containerId: 'bad', netns }, { env }))
          assert.equal(error.code, 4, JSON.stringify(env))
          assert.match(error.msg, msg)
          assertSameState(state(), kept, JSON.stringify(env))
        }
      })

      testTwiceInWhole(mode)('ADD: a full subnet is error 102, and the ones that have an address keep it', async () => {
        const ipam = { type: 'host-local', dataDir: node.leases, ranges: [[{ subnet: '10.40.0.0/30' }]] }
        const first = { containerId: 'f1', netns }
        resultOf(await node.call('ADD', first, { more: { ipam } }))
        const full = errorOf(await node.call('ADD', { containerId: 'f2', netns, ifName: 'eth1' }, { more: { ipam } }))
        assert.equal(full.code, 102)
        assert.match(full.msg, /no IP addresses available/)
        resultOf(await node.call('DEL', first, { more: { ipam } }))
        assertSameState(state(), kept)
      })

      testTwiceInWhole(mode)('ADD: strange JSON harms nobody (ROB-09)', async () => {
        const config = JSON.stringify(node.config())
        const strange = [
          config.replace('{', `{"deep": ${deep(10_000)},`),
          config.replace('{', '{"__proto__": {"mtu": 7}, "constructor": {"prototype": {"mtu": 7}},'),
          config.replace('{', '{"big": 1e400, "long": 123456789012345678901234567890,'),
          config.replace('{', '{"mtu": 1200, "mtu": 1300,'),
          `\uFEFF${config}`,
        ]
        for (const [index, text] of strange.entries()) {
          const it = { containerId: `strange${index}`, netns, config: text }
          const outcome = await node.call('ADD', it)
          if (outcome.code !== 0) assert.ok([6, 7].includes(errorOf(outcome).code), outcome.stdout)
          else assert.notEqual(JSON.parse(outcome.stdout).interfaces[1].mtu, 7)
          const { code, stdout } = await node.call('DEL', it)
          if (outcome.code === 0) assert.deepEqual([code, stdout], [0, ''])
          assertSameState(state(), kept, text.slice(0, 40))
        }
      })

      test('a password is in no output, log, file or journal', async () => {
        const it = { containerId: 'secret', netns }
        const more = {
          openstackConf: { username: 'u', password: SECRET },
          args: { cni: { token: SECRET } },
          ipam: { ...(node.config()['ipam'] as object), password: SECRET, nested: [{ clientSecret: SECRET }] },
        }
        const outcomes = [
          await node.call('ADD', it, { more }),
          await node.call('ADD', it, { more }),
          await node.call('CHECK', it, { more }),
          await node.call('ADD', { ...it, ifName: 'eth1' }, { more: { ...more, mtu: SECRET.length + 100_000 } }),
        ]
        assert.deepEqual(
          outcomes.map(({ code }) => code),
          [0, 1, 1, 1],
        )
        for (const { stdout, stderr } of outcomes) assert.ok(!`${stdout}${stderr}`.includes(SECRET))
        assert.ok(!agent?.log.some(line => line.includes(SECRET)))
        for (const name of readdirSync(node.dataDir, { recursive: true }) as string[]) {
          const path = join(node.dataDir, name)
          if (name !== 'spool') assert.ok(!readFileSync(path, 'latin1').includes(SECRET), path)
        }
        resultOf(await node.call('DEL', it, { more }))
        assertSameState(state(), kept)
      })

      testTwiceInWhole(mode)('a container id of 300 letters works like any other (ENV-12)', async () => {
        const it = { containerId: 'c'.repeat(300), netns }
        resultOf(await node.call('ADD', it))
        resultOf(await node.call('DEL', it))
        assertSameState(state(), kept)
      })

      test('stdin that stays open ends with error 5 (ENV-28)', async () => {
        const outcome = await node.call('ADD', { containerId: 'open', netns }, { holdStdin: true, timeoutMs: 20_000 })
        const error = errorOf(outcome)
        assert.deepEqual([error.code, error.msg], [5, 'Cannot read the network configuration: stdin stays open'])
        assert.ok(outcome.ms < 15_000)
        assertSameState(state(), kept)
      })
    })
})
