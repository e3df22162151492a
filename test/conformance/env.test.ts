// SPDX-License-Identifier: Apache-2.0
// What a plugin wants of its environment and of stdin: items ENV of the conformance list.
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { suite, test } from 'node:test'
import {
  assertSilent,
  type Execution,
  errorOf,
  folder,
  leftovers,
  mainPlugin,
  missing,
  netns,
  plugin,
  pod,
  resultOf,
  without,
} from './harness.ts'

const environment: Record<string, string> = {
  CNI_COMMAND: 'ADD',
  CNI_CONTAINERID: 'c1',
  CNI_IFNAME: 'eth0',
  CNI_NETNS: pod(),
}

const config = (more: object = {}) => ({
  cniVersion: '1.1.0',
  name: 'n',
  type: 'host-local',
  ipam: { type: 'host-local', subnet: '10.79.0.0/24', dataDir: folder('data') },
  ...more,
})

const call = (env: Record<string, string>, text: object | string = config(), options: Execution = {}) =>
  plugin('host-local', { ...environment, ...env }, text, options)

/** A call with a variable missing. */
const callWithout = (names: string[], env: Record<string, string> = {}, text: object | string = config()) =>
  plugin('host-local', without({ ...environment, ...env }, ...names), text, { bare: names })

suite('ENV environment of a plugin', { skip: missing, concurrency: 2 }, () => {
  test('ENV-01 ENV-02 verbs are upper case, others are error 4', async () => {
    for (const verb of ['add', 'UPDATE', 'Del']) {
      const error = errorOf(await call({ CNI_COMMAND: verb }))
      assert.deepEqual([error.code, error.msg], [4, `unknown CNI_COMMAND: ${verb}`])
    }
  })

  test('ENV-03 without CNI_COMMAND a person is told what it is, on stderr, exit code 0', async () => {
    const outcome = await callWithout(['CNI_COMMAND'])
    assertSilent(outcome)
    assert.match(outcome.stderr, /CNI protocol versions supported: 0\.1\.0, /)
  })

  for (const [id, verb] of [
    ['ENV-04', 'ADD'],
    ['ENV-06', 'CHECK'],
  ] as const)
    test(`${id} ${verb} wants container id, namespace and interface`, async () => {
      for (const name of ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME']) {
        const error = errorOf(await callWithout([name], { CNI_COMMAND: verb }))
        assert.deepEqual([error.code, error.msg], [4, `required env variables [${name}] missing`])
      }
    })

  test('ENV-05 all missing variables are in one error, in order', async () => {
    const error = errorOf(await callWithout(['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_PATH']))
    assert.equal(error.msg, 'required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing')
  })

  test('ENV-07 DEL wants container id and interface, not the namespace', async () => {
    assertSilent(await callWithout(['CNI_NETNS'], { CNI_COMMAND: 'DEL' }))
    assertSilent(await call({ CNI_COMMAND: 'DEL', CNI_NETNS: '' }))
    for (const name of ['CNI_CONTAINERID', 'CNI_IFNAME'])
      assert.equal(errorOf(await callWithout([name], { CNI_COMMAND: 'DEL' })).code, 4)
  })

  test('ENV-08 VERSION wants nothing else and does not look at it', async () => {
    resultOf(await call({ CNI_COMMAND: 'VERSION', CNI_CONTAINERID: '!!', CNI_IFNAME: 'a/b' }, ''))
    resultOf(
      await callWithout(['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_PATH'], { CNI_COMMAND: 'VERSION' }, ''),
    )
  })

  test('ENV-09 STATUS and GC want no container, STATUS no CNI_PATH', async () => {
    const container = ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME']
    assertSilent(await callWithout([...container, 'CNI_PATH'], { CNI_COMMAND: 'STATUS' }))
    assertSilent(await callWithout(container, { CNI_COMMAND: 'GC' }))
  })

  test('ENV-10 an empty variable is a missing one', async () => {
    const error = errorOf(await call({ CNI_IFNAME: '' }))
    assert.deepEqual([error.code, error.msg], [4, 'required env variables [CNI_IFNAME] missing'])
  })

  test('ENV-11 containerID with invalid characters is error 4', async () => {
    for (const id of ['-a', '.a', '_a', 'a/b', 'a b', 'é', 'a\n']) {
      const error = errorOf(await call({ CNI_CONTAINERID: id }))
      assert.deepEqual([error.code, error.msg, error.details], [4, 'invalid characters in containerID', id])
    }
    resultOf(await call({ CNI_CONTAINERID: 'A-1_b.c' }))
  })

  test('ENV-12 a container id of 300 characters works, or fails before anything is done', async () => {
    const text = config()
    const outcome = await call({ CNI_CONTAINERID: 'a'.repeat(300) }, text)
    if (outcome.rc === 0) assertSilent(await call({ CNI_COMMAND: 'DEL', CNI_CONTAINERID: 'a'.repeat(300) }, text))
    else errorOf(outcome)
    assert.doesNotMatch(leftovers([], [text.ipam.dataDir]), /10\.79\.0\.\d+$/m)
  })

  test('ENV-13 ENV-14 ENV-15 an interface name that the kernel would not take is error 4', async () => {
    const cases: [string, string][] = [
      ['a'.repeat(16), 'interface name is too long'],
      ['é'.repeat(8), 'interface name is too long'],
      ['.', 'interface name is . or ..'],
      ['..', 'interface name is . or ..'],
      ...['a/b', 'a:b', 'a b', 'a\tb', 'a\u00a0b', 'a\u2003b'].map((name): [string, string] => [
        name,
        'interface name contains / or : or whitespace characters',
      ]),
      ['all', 'interface name is reserved: all'],
      ['default', 'interface name is reserved: default'],
      ['eth%d', 'interface name contains %'],
    ]
    for (const [ifName, msg] of cases) {
      const error = errorOf(await call({ CNI_IFNAME: ifName }))
      assert.deepEqual([error.code, error.msg], [4, msg])
    }
    resultOf(await call({ CNI_IFNAME: 'a'.repeat(15) }))
  })

  test('ENV-16 a variable is validated only if the verb requires it', async () => {
    assertSilent(await call({ CNI_COMMAND: 'STATUS', CNI_CONTAINERID: '!!', CNI_IFNAME: 'a/b' }))
    assert.equal(errorOf(await callWithout(['CNI_NETNS'], { CNI_CONTAINERID: '-a' })).code, 4)
  })

  test('ENV-17 checks come in the order environment, stdin, name, version, verb', async () => {
    assert.equal(errorOf(await call({ CNI_CONTAINERID: '-a' }, '{')).code, 4)
    assert.equal(errorOf(await call({ CNI_COMMAND: 'X' }, '{')).code, 6)
    assert.equal(errorOf(await call({}, { cniVersion: '9.9.9' })).code, 7)
    assert.equal(errorOf(await call({}, { cniVersion: '9.9.9', name: 'n', ipam: 5 })).code, 1)
  })

  test('ENV-18 the network name is required and has the form of a container id', async () => {
    for (const verb of ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS']) {
      const none = errorOf(await call({ CNI_COMMAND: verb }, {}))
      assert.deepEqual([none.code, none.msg], [7, 'missing network name'])
      const bad = errorOf(await call({ CNI_COMMAND: verb }, config({ name: 'a/b' })))
      assert.deepEqual([bad.code, bad.msg, bad.details], [7, 'invalid characters found in network name', 'a/b'])
    }
  })

  test("ENV-19 ENV-20 ENV-21 the plugin's own namespace is refused before any change, unless overridden", async () => {
    const own = { CNI_NETNS: '/proc/self/ns/net' }
    const text = config()
    for (const verb of ['ADD', 'DEL']) {
      const outcome = await call({ ...own, CNI_COMMAND: verb }, text)
      const error = errorOf(outcome)
      assert.deepEqual([error.code, error.msg], [8, "plugin's netns and netns from CNI_NETNS should not be the same"])
    }
    assert.doesNotMatch(leftovers([], [text.ipam.dataDir]), /10\.79/)
    for (const value of ['1', 'true']) {
      resultOf(await call({ ...own, CNI_NETNS_OVERRIDE: value }, text))
      assertSilent(await call({ ...own, CNI_NETNS_OVERRIDE: value, CNI_COMMAND: 'DEL' }, text))
    }
  })

  test('ENV-21 veth-route refuses the own namespace and leaves nothing', async () => {
    const node = netns('node')
    const text = { cniVersion: '1.1.0', name: 'n', type: mainPlugin, ipam: config().ipam }
    const before = leftovers([node.name])
    const outcome = await plugin(mainPlugin, { ...environment, CNI_NETNS: node.path }, text, { inNetns: node.path })
    assert.equal(errorOf(outcome).code, 8)
    assert.equal(leftovers([node.name]), before)
    assert.deepEqual(readdirSync(text.ipam.dataDir), [])
  })

  test('ENV-22 stdout has the result or the error alone', async () => {
    for (const outcome of [await call({}), await call({ CNI_IFNAME: 'a/b' }), await call({ CNI_COMMAND: 'VERSION' })])
      JSON.parse(outcome.stdout)
  })

  test('ENV-23 CNI_ARGS wants pairs with one =', async () => {
    for (const args of ['A', 'A=B=C', ';'])
      assert.match(errorOf(await call({ CNI_ARGS: args })).msg, /ARGS: invalid pair/)
  })

  test('ENV-24 unknown keys of CNI_ARGS are refused without IgnoreUnknown, keys are case-sensitive', async () => {
    assert.match(errorOf(await call({ CNI_ARGS: 'FOO=1' })).msg, /ARGS: unknown args \["FOO=1"\]/)
    assert.match(errorOf(await call({ CNI_ARGS: 'ip=10.79.0.9' })).msg, /ARGS: unknown args/)
    assert.match(errorOf(await call({ CNI_ARGS: 'FOO=1;IgnoreUnknown=0' })).msg, /ARGS: unknown args/)
    errorOf(await call({ CNI_ARGS: 'FOO=1;IgnoreUnknown=yes' }))
    for (const value of ['1', 'true', 'TRUE']) resultOf(await call({ CNI_ARGS: `FOO=1;IgnoreUnknown=${value}` }))
  })

  test('ENV-25 what containerd sends breaks no plugin', async () => {
    const args =
      'K8S_POD_UID=1e4d4eb0;IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=sample;K8S_POD_INFRA_CONTAINER_ID=7828'
    resultOf(await call({ CNI_ARGS: args }))
    const [node, container] = [netns('node'), netns('pod')]
    const text = { cniVersion: '1.1.0', name: 'n', type: mainPlugin, ipam: config().ipam }
    const env = { ...environment, CNI_NETNS: container.path, CNI_ARGS: args }
    resultOf(await plugin(mainPlugin, env, text, { inNetns: node.path }))
    assertSilent(await plugin(mainPlugin, { ...env, CNI_COMMAND: 'DEL' }, text, { inNetns: node.path }))
  })

  test('ENV-26 keys are read in any case, the last duplicate wins, unknown keys are ignored', async () => {
    const dataDir = folder('data')
    const text =
      `{"CniVersion":"1.0.0","Name":"other","NAME":"n","nobody":{"x":[1]},` +
      `"IPAM":{"Type":"host-local","Subnet":"10.0.0.0/24","subnet":"10.79.0.0/24","DataDir":"${dataDir}"}}`
    const result = resultOf(await call({}, text))
    assert.deepEqual([result.cniVersion, result.ips[0].address], ['1.0.0', '10.79.0.2/24'])
    assert.match(leftovers([], [dataDir]), /\/n\/10\.79\.0\.2/)
  })

  test('ENV-27 a wrong JSON type is an error that names the key', async () => {
    const wrong = errorOf(await call({}, config({ ipam: { type: 'host-local', subnet: 5 } })))
    assert.match(wrong.msg, /subnet/i)
    const mtu = { cniVersion: '1.1.0', name: 'n', type: mainPlugin, mtu: '1500', ipam: config().ipam }
    assert.match(errorOf(await plugin(mainPlugin, environment, mtu)).msg, /mtu/)
  })

  test('ENV-28 stdin that is huge, has a byte order mark or trailing bytes is error 5 or 6', async () => {
    const sound = JSON.stringify(config())
    for (const text of [
      `${sound.slice(0, -1)},"x":"${'y'.repeat(2 << 20)}"}`,
      `\ufeff${sound}`,
      `${sound} x`,
      `${sound}${sound}`,
    ]) {
      const { code } = errorOf(await call({}, text))
      assert.ok(code === 5 || code === 6, `${code}`)
    }
  })

  test('ENV-28 stdin that is never closed ends in an error, not in waiting', async () => {
    const outcome = await call({}, '', { holdStdin: true, timeoutMs: 25_000 })
    const { code } = errorOf(outcome)
    assert.ok(code === 5 || code === 6 || code === 11, `${code}`)
  })
})
