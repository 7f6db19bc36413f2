// Reads only: everything a client can look at, printed, so that two ways to it can be compared.
import { all, check, client, given } from './checks.mjs'

const sdk = client()
const { bot, dataset, record, conversation, file } = given

const reads = {
  'bots, a page': () => sdk.bot.list({ take: 2 }),
  'bots, the next page': async () => {
    const { cursor } = await sdk.bot.list({ take: 2 })
    return sdk.bot.list({ take: 2, cursor })
  },
  'bots, by meta': () => sdk.bot.list({ meta: { tier: 'gold' } }),
  'bots, streamed': () => all(sdk.bot.list().stream()),
  'a bot': () => sdk.bot.fetch(bot),
  'a bot by alias': () => sdk.bot.fetch('@bot-0'),
  'a bot by name': () => sdk.bot.fetch('(Bot 1)'),
  'a dataset': () => sdk.dataset.fetch(dataset),
  'a record': () => sdk.dataset.record.fetch(dataset, record),
  'records, exported': () => sdk.dataset.record.export(dataset),
  'records, exported as a stream': () => all(sdk.dataset.record.export(dataset).stream()),
  'a search': () => sdk.dataset.search(dataset, 'tea'),
  'a conversation': () => sdk.conversation.fetch(conversation),
  'its messages': () => sdk.conversation.message.list(conversation),
  'a file': () => sdk.file.fetch(file),
  'its bytes': async () => {
    const { data, headers } = await sdk.file.download(file)
    const kept = ['content-type', 'content-disposition', 'content-length']
    return { bytes: Buffer.from(data).toString('hex'), headers: kept.map((name) => headers.get(name)) }
  },
  secrets: () => sdk.secret.list(),
  'a query': () => sdk.graphql.call({ query: '{ bots(first: 3) { edges { node { id name } } } }' }),
}

for (const [name, read] of Object.entries(reads)) {
  await check(name, async () => read())
}
